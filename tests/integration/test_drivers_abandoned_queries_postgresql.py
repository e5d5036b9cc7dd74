"""Ending abandoned queries on PostgreSQL: by libpq's request for two drivers, by our own for the third."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from geventpool.drivers import driver_for
from tools.servers import PostgreSQL

from .dbapi import POSTGRESQL, module_of, open_connection, run
from .test_drivers_abandoned_queries import Mourned, Stop, descriptors, end, mourned_of

__all__ = ["mourned_of"]  # a fixture of pytest's


@pytest.mark.parametrize("name", POSTGRESQL)
def test_a_server_that_does_not_answer_a_cancel_stops_nobody_else(name: str) -> None:
    """The server's first process sleeps, so that it takes connections and says nothing to them."""
    with PostgreSQL() as server:
        mourned = Mourned(name, server.url(name))
        abandoned = mourned.abandon()
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            while True:
                gevent.sleep(0.005)
                ticks += 1

        ticker = gevent.spawn(tick)
        os.kill(server._process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(gevent.Timeout), gevent.Timeout(1):
                abandoned.cancel(mourned.connect)
        finally:
            os.kill(server._process.pid, signal.SIGCONT)
            ticker.kill()
        assert ticks > 10, "the hub stood still"
        with contextlib.closing(abandoned):
            abandoned.cancel(mourned.connect)
            assert abandoned.wait(5)
        mourned.subject.close()


@pytest.mark.parametrize("name", ["psycopg", "psycopg2"])
def test_no_more_than_a_few_threads_wait_for_servers_that_do_not_answer(
    mourned_of: Callable[..., Mourned], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geventpool.drivers.libpq._MOST_THREADS", 0)
    mourned = mourned_of(name)
    abandoned = mourned.abandon()
    with pytest.raises(RuntimeError, match="hang already"):
        abandoned.cancel(mourned.connect)
    monkeypatch.undo()
    end(mourned, abandoned)


@pytest.mark.parametrize("name", ["psycopg", "psycopg2"])
def test_without_libpqs_functions_a_cancel_says_so_and_the_wait_still_works(
    mourned_of: Callable[..., Mourned], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "psycopg" and module_of(name).pq.__impl__ == "python":
        pytest.skip("NOT RUN: this psycopg calls libpq by ctypes itself")
    monkeypatch.setattr("geventpool.drivers.libpq._load", lambda extension: None)
    mourned = mourned_of(name)
    with contextlib.closing(mourned.abandon()) as abandoned:
        with pytest.raises(RuntimeError, match="cannot be reached"):
            abandoned.cancel(mourned.connect)
        mourned.subject.kill()
        assert abandoned.wait(5)


def test_psycopg2s_wait_callback_is_wrapped_once_and_again_if_the_user_sets_another(
    postgresql: Any,
) -> None:
    from psycogreen.gevent import gevent_wait_callback
    from psycopg2 import extensions

    seen: list[Any] = []

    def mine(connection: Any) -> None:
        seen.append(connection)
        gevent_wait_callback(connection)

    def adopted() -> Any:
        connection = open_connection("psycopg2", postgresql.url("psycopg2"))
        driver_for(connection).adopt(connection)
        return connection

    was = extensions.get_wait_callback()
    try:
        first = adopted()
        wrapped = extensions.get_wait_callback()
        second = adopted()
        assert extensions.get_wait_callback() is wrapped
        extensions.set_wait_callback(mine)
        third = adopted()
        assert extensions.get_wait_callback() is not mine
        run(third, "select 1")
        assert third in seen
        for one in (first, second, third):
            one.close()
        extensions.set_wait_callback(None)
        fourth = adopted()
        assert extensions.get_wait_callback() is None
        fourth.close()
    finally:
        extensions.set_wait_callback(was)


def test_a_psycopg2_connection_that_no_pool_has_opened_is_left_as_it_is(
    mourned_of: Callable[..., Mourned],
) -> None:
    mourned = mourned_of("psycopg2")  # the callback is wrapped now
    stranger = open_connection("psycopg2", mourned.url)
    before = descriptors()
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        run(stranger, "select pg_sleep(0.5)")
    assert stranger.closed
    assert descriptors() == before - 1
    assert driver_for(stranger).abandoned(stranger) is None


def test_a_server_in_the_middle_of_a_large_answer_is_ended(
    mourned_of: Callable[..., Mourned],
) -> None:
    """It waits for somebody to read, and looks at nothing else."""
    mourned = mourned_of("pg8000")
    with pytest.raises(Stop):
        kill_after_a_while(
            lambda: run(
                mourned.subject.connection, "select repeat('x', 10000) from generate_series(1, 1e6)"
            )
        )
    end(mourned, mourned.close())


def kill_after_a_while(work: Callable[[], object]) -> None:
    timer = gevent.get_hub().loop.timer(0.1)
    timer.start(gevent.getcurrent().throw, Stop())
    try:
        work()
    finally:
        timer.stop()
        timer.close()
