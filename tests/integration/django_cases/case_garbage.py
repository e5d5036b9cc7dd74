"""Wrappers that nobody closes: the garbage collector does the rest, wherever it runs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

import geventpool.django

from ...stress import test_garbage as garbage
from ...stress.server_side import Observer, make_databases
from ...stress.test_garbage import printed
from ...stress.test_kill_sweep import KINDS
from .conftest import DRIVER, IS_MYSQL

__all__ = ["printed"]

NAME = "geventpool_django_garbage"


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    databases = make_databases(request, NAME, garbage.prepare)
    yield next(databases)("pymysql" if IS_MYSQL else DRIVER)
    next(databases, None)


class Djangos(garbage.Plain):
    """Wrappers, which always refer to themselves in a circle."""

    def __init__(self, alias: str, url: str) -> None:
        self.alias = alias
        self.observer = Observer(url)
        self.pool = geventpool.django.pool(alias)

    def lend(self) -> Any:
        wrapper = connections[self.alias].copy()
        wrapper.ensure_connection()
        return wrapper

    def insert(self, lent: Any) -> None:
        lent.set_autocommit(False)
        with lent.cursor() as cursor:
            cursor.execute("insert into litter values (1)")

    def close(self) -> None:
        self.observer.close()


@pytest.fixture
def door(alias: Callable[..., str], url: str) -> Iterator[Djangos]:
    door = Djangos(alias(NAME=NAME, POOL={"max_size": garbage.MAX_SIZE, "timeout": 30}), url)
    gc.collect()
    gc.freeze()
    gc.disable()
    yield door
    gc.enable()
    gc.unfreeze()
    door.close()


@pytest.mark.parametrize("way", garbage.WAYS)
def test_wrappers_that_are_dropped_come_back_sound_and_silently(
    door: Djangos, way: Callable[[Any], None]
) -> None:
    ids = garbage.fill(door)
    for _ in range(garbage.ROUNDS):
        way(door)
    garbage.everything_is_back(door, ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_that_arrives_while_a_wrapper_is_collected_is_not_lost(
    door: Djangos, kind: Any
) -> None:
    garbage.test_a_kill_that_arrives_while_a_finalizer_runs_is_not_lost_in_it(door, kind)
