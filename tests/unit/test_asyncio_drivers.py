"""A driver for asyncio, given by mistake, is refused in a sentence."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

import aiomysql
import aiosqlite
import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine

from geventpool import ConfigError, ConnectionPool
from geventpool.sqlalchemy import GeventPool

GIVEN: list[Callable[[], Any]] = [
    lambda: aiomysql.connect(host="127.0.0.1"),
    lambda: aiosqlite.connect(":memory:"),
    lambda: asyncpg.connect("postgresql://127.0.0.1"),
    lambda: psycopg.AsyncConnection.connect("host=127.0.0.1"),
]


@pytest.mark.parametrize("connect", GIVEN, ids=["aiomysql", "aiosqlite", "asyncpg", "psycopg"])
def test_what_opens_a_connection_for_asyncio_is_refused_at_the_first_use(
    connect: Callable[[], Any],
) -> None:
    pool = ConnectionPool(connect)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"connect=.*: it is for asyncio.*use psycopg"):
            pool.connection()
    assert pool.stats().size == 0
    pool.close()
    gc.collect()  # Python would warn of what nobody has awaited


def test_a_coroutine_function_is_refused_when_the_pool_is_made() -> None:
    with pytest.raises(ConfigError, match="it is for asyncio"):
        ConnectionPool(asyncpg.connect)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://127.0.0.1/shop",
        "mysql+aiomysql://127.0.0.1/shop",
        "sqlite+aiosqlite:///shop.db",
    ],
)
@pytest.mark.parametrize(
    "by",
    [
        lambda url: create_engine(url, poolclass=GeventPool),
        lambda url: create_engine(f"{url}?plugin=geventpool"),
    ],
    ids=["class", "url"],
)
def test_a_url_for_asyncio_is_refused_when_the_engine_is_made(
    by: Callable[[str], Engine], url: str
) -> None:
    said = f"url='{url.partition('://')[0]}://': it is for asyncio"
    with pytest.raises(ConfigError, match=re.escape(said)):
        by(url)
