"""The system checks, each with what it warns of and without."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from django.core import checks as djangos
from django.core.management import call_command
from django.db import connections
from gevent.monkey import get_original

from geventpool.django import checks
from geventpool.doctor.server import IN_TRANSACTION
from geventpool.doctor.sources.django import look

from .conftest import DRIVER, IS_MYSQL, KIND, ask

Alias = Callable[..., str]


def ids() -> set[str]:
    return {message.id or "" for message in checks.check_settings(None)}


def usual() -> set[str]:
    return {"geventpool.W003"} if DRIVER == "mysqlclient" else set()


def test_nothing_is_wrong_with_settings_that_are_right(alias: Alias) -> None:
    alias(POOL="fast_and_wild")
    assert ids() == usual()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"POOL": {"max_sizes": 3}}, "geventpool.E001"),
        ({"OPTIONS": {"pool": True}}, "geventpool.E001"),
        ({"ENGINE": f"django.db.backends.{KIND}", "POOL": {}}, "geventpool.W001"),
        ({"CONN_MAX_AGE": 60}, "geventpool.W002"),
        ({"CONN_MAX_AGE": None}, "geventpool.W002"),
    ],
)
def test_what_is_wrong_with_an_alias_is_told(alias: Alias, changes: Any, expected: str) -> None:
    name = alias(**changes)
    (message,) = [one for one in checks.check_settings(None) if one.id == expected]
    assert name in message.msg
    assert ids() == {expected} | usual()


def test_a_backend_that_is_derived_from_ours_is_checked_too(
    alias: Alias, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = importlib.import_module(f"geventpool.django.{KIND}.base")
    package, base = ModuleType("shop_backend"), ModuleType("shop_backend.base")
    package.__path__ = []
    base.DatabaseWrapper = type("DatabaseWrapper", (ours.DatabaseWrapper,), {})
    monkeypatch.setitem(sys.modules, "shop_backend", package)
    monkeypatch.setitem(sys.modules, "shop_backend.base", base)
    name = alias(ENGINE="shop_backend", POOL={"max_size": 3}, CONN_MAX_AGE=60)
    assert ids() == {"geventpool.W002"} | usual()
    out = io.StringIO()
    call_command("geventpool", "status", database=name, stdout=out)
    assert f"{name} " in out.getvalue()


def test_they_are_run_by_djangos_own_check(alias: Alias) -> None:
    alias(CONN_MAX_AGE=60)
    assert "geventpool.W002" in {message.id for message in djangos.run_checks()}


def test_an_import_of_django_before_the_patches_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    native: Any = get_original("_thread", "_local")
    monkeypatch.setitem(connections._connections.__dict__, "_storage", native())
    assert "geventpool.E002" in ids()


@pytest.mark.skipif(DRIVER != "psycopg2", reason="psycopg2's wait callback")
def test_psycopg2_without_psycogreen_is_told() -> None:
    extensions = sys.modules["psycopg2.extensions"]
    before = extensions.get_wait_callback()
    extensions.set_wait_callback(None)
    try:
        assert "geventpool.W003" in ids()
    finally:
        extensions.set_wait_callback(before)


def test_the_maxima_are_added_up_for_each_server(
    alias: Alias, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = look("stock").room
    name = alias(POOL={"max_size": allowed - 30})
    assert checks.check_server(None, databases=[name]) == []
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    (message,) = checks.check_server(None, databases=[name])
    assert message.id == "geventpool.W005"
    # The default alias is on the same server.
    assert f"up to {2 * (allowed - 30 + 20)} " in message.msg
    assert checks.check_server(None, databases=None) == []


def test_a_server_tells_of_its_connections(alias: Alias) -> None:
    name = alias()
    before = look("stock")
    ask(name)
    connections[name].set_autocommit(False)
    ask(name)
    view = look("stock")
    assert len(view.sessions) == len(before.sessions) + 1
    begun = view.count(IN_TRANSACTION), before.count(IN_TRANSACTION)
    assert begun[0] == begun[1] + (not IS_MYSQL)


def test_a_server_that_is_down_is_left_to_djangos_own_messages(alias: Alias) -> None:
    name = alias(PORT="1")
    assert checks.check_server(None, databases=[name]) == []
