"""Blocked hubs are found, with the line that blocked them; and pools that other threads use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import get_hub
from gevent.monkey import get_original
from sqlalchemy import create_engine, text

import geventpool.observe
from geventpool import ConfigError
from geventpool.core.watch import is_libuv
from geventpool.observe.hub import HubWatch
from geventpool.sqlalchemy import GeventPool

block = get_original("time", "sleep")


if is_libuv(get_hub().loop):
    pytest.skip("no hub of libuv can be watched", allow_module_level=True)


@pytest.fixture
def watch() -> Iterator[HubWatch]:
    watch = geventpool.observe.watch_hub(blocked_after=0.1)
    gevent.sleep(0.01)
    yield watch
    watch.stop()


def compute(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize("culprit", [block, compute], ids=["blocks", "computes"])
def test_who_keeps_the_hub_is_named(watch, caplog, culprit) -> None:
    def view() -> None:
        culprit(0.5)

    gevent.spawn(view)
    gevent.sleep(1.0)  # with nothing else for the loop to do
    assert watch.blocks >= 1
    longest = watch.longest
    assert longest.seconds >= 0.5
    assert watch.blocked_seconds >= 0.5
    assert any(line[2] == "view" for line in longest.site)
    assert "the hub did not run for" in caplog.text
    assert "in view" in caplog.text


def test_waiting_is_not_blocking(watch) -> None:
    before = watch.blocked_seconds
    gevent.sleep(1.5)  # a turn of the loop that waits takes no time of it
    # A busy machine may have paused us for a while.
    assert watch.blocked_seconds - before < 1.5


def test_a_second_watch_takes_the_place_of_the_first(watch) -> None:
    second = geventpool.observe.watch_hub(blocked_after=0.05)
    assert second.to_json()["threshold"] == 0.05
    assert geventpool.observe.snapshot()["hub"]["threshold"] == 0.05
    second.stop()
    assert geventpool.observe.snapshot()["hub"] is None


@pytest.mark.parametrize("value", [0, -1, "1", None])
def test_a_wrong_threshold_is_refused(value) -> None:
    with pytest.raises(ConfigError, match="blocked_after"):
        geventpool.observe.watch_hub(value)


def test_no_hub_of_libuv_is_watched_and_flasks_door_does_without() -> None:
    program = (
        "import flask, geventpool.observe\nfrom geventpool.flask import GeventPool\n"
        "app = flask.Flask('shop')\napp.config['GEVENTPOOL_OBSERVE'] = True\nGeventPool(app)\n"
        "geventpool.observe.watch_hub()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "GEVENT_LOOP": "libuv-cffi"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "GEVENT_LOOP='libuv': a hub can be watched on libev only, so unset it"
    assert said in done.stderr
    assert "line 6, in <module>" in done.stderr


def test_native_threads_that_use_a_pool_are_observed_with_their_call_sites(tmp_path) -> None:
    engine: Any = create_engine(
        f"sqlite:///{tmp_path / 'observed.sqlite3'}",
        poolclass=GeventPool,
        connect_args={"check_same_thread": False},
    )
    with engine.connect():
        pass  # this thread's hub owns the pool
    observer = geventpool.observe.attach(engine)

    def in_a_thread() -> list[Any]:
        with engine.connect() as connection:
            connection.execute(text("select 1"))
            return observer.holders()

    [holder] = get_hub().threadpool.apply(in_a_thread)
    assert "in in_a_thread" in holder.site
    gevent.sleep(0.1)
    [query] = observer.queries.report()
    assert (query.text, query.calls) == ("select ?", 1)
    assert observer.holders() == []
    engine.dispose()
