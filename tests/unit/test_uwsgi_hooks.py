"""`geventpool.uwsgi` with a stand-in for the module that uWSGI gives to its workers."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import geventpool
from geventpool import ConfigError
from geventpool.uwsgi import drain_at_exit


class Pool:
    def __init__(self) -> None:
        self.waited: list[float] = []
        self.closed = 0

    def drain(self, timeout: float) -> bool:
        self.waited.append(timeout)
        return True

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    pool = Pool()
    monkeypatch.setattr(geventpool, "pools", lambda: [pool])
    return pool


def a_worker(monkeypatch: pytest.MonkeyPatch, number: int, *statuses: bytes) -> Any:
    """Its status is the next one at each look."""
    left = list(statuses) or [b"idle"]
    said = {"status": b"idle"}

    def workers() -> tuple[dict[str, bytes], ...]:
        said["status"] = left.pop(0) if left else b"idle"
        return (said,)

    uwsgi = SimpleNamespace(worker_id=lambda: number, workers=workers)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    return uwsgi


def test_a_worker_answers_first_then_drains_and_closes(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uwsgi = a_worker(monkeypatch, 1, b"busy", b"busy", b"idle")
    drain_at_exit(5)
    uwsgi.atexit()
    assert (len(pool.waited), pool.closed) == (1, 1)
    assert 0 < pool.waited[0] < 5
    assert uwsgi.workers()[0]["status"] == b"idle"


def test_a_worker_that_stays_busy_is_not_waited_for_longer_than_told(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uwsgi = a_worker(monkeypatch, 1, *[b"busy"] * 100_000)
    drain_at_exit(0.05)
    uwsgi.atexit()
    assert (pool.waited, pool.closed) == ([0.0], 1)


def test_the_master_only_closes(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    uwsgi = a_worker(monkeypatch, 0, b"busy")
    drain_at_exit()
    uwsgi.atexit()
    assert (pool.waited, pool.closed) == ([0.0], 1)


def test_what_was_to_be_called_at_exit_before_still_is(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uwsgi = a_worker(monkeypatch, 1)
    called: list[int] = []
    uwsgi.atexit = lambda: called.append(pool.closed)
    drain_at_exit()
    uwsgi.atexit()
    assert called == [1]


def test_outside_of_uwsgi_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", None)
    drain_at_exit()


@pytest.mark.parametrize("timeout", ["10", None, True, math.nan, math.inf, -1])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        drain_at_exit(timeout)
    assert str(caught.value) == f"timeout={timeout!r}: give a number of seconds, 0 or more"
