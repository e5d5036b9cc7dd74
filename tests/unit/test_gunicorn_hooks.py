"""The gunicorn hooks, each called as gunicorn calls it, with a worker made of plain values."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

import geventpool
import geventpool.gunicorn as hooks
from geventpool.errors import ConfigError


class Log:
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, message: str, *args: object) -> None:
        """As logging's."""
        self.warnings.append(message % args)


class Pool:
    """Remembers for how long it was asked to drain, and that it was closed."""

    def __init__(self, *, drains: bool = True, interrupt: BaseException | None = None) -> None:
        self.drains, self.interrupt = drains, interrupt
        self.timeouts: list[float] = []
        self.closed = 0

    def drain(self, timeout: float) -> bool:
        """Wait for what is in use."""
        self.timeouts.append(timeout)
        if self.interrupt:
            raise self.interrupt
        return self.drains

    def close(self) -> None:
        """Close everything."""
        self.closed += 1

    def status(self) -> str:
        """One line."""
        return "in use 1"


class PlainWorker(SimpleNamespace):
    """A worker that doesn't monkey-patch."""


def worker(**changes: Any) -> Any:
    """A worker of this process under gunicorn's default settings."""
    cfg = SimpleNamespace(graceful_timeout=30, timeout=30, preload_app=False)
    for name in ("graceful_timeout", "timeout", "preload_app"):
        if name in changes:
            setattr(cfg, name, changes.pop(name))
    cls = changes.pop("cls", PlainWorker)
    return cls(**{"pid": os.getpid(), "age": 1, "log": Log(), "cfg": cfg, **changes})


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    """What `geventpool.pools()` gives."""
    pools: list[Pool] = []
    monkeypatch.setattr(geventpool, "pools", lambda: list(pools))
    monkeypatch.setattr(hooks, "_quick_exit_of", None)
    monkeypatch.delenv("GEVENTPOOL_DRAIN_TIMEOUT", raising=False)
    return pools


def test_every_pool_is_drained_within_one_grace_time_and_closed(pools: list[Pool]) -> None:
    pools += [Pool(), Pool()]
    hooks.worker_exit(None, worker(graceful_timeout=10))
    assert [pool.closed for pool in pools] == [1, 1]
    assert 9.0 < pools[1].timeouts[0] <= pools[0].timeouts[0] <= 10.0


def test_the_grace_time_ends_before_the_master_misses_the_heartbeat(pools: list[Pool]) -> None:
    pools.append(Pool())
    hooks.worker_exit(None, worker(graceful_timeout=60, timeout=30))
    assert 27.0 < pools[0].timeouts[0] <= 28.0


def test_without_a_heartbeat_limit_the_grace_time_is_whole(pools: list[Pool]) -> None:
    pools.append(Pool())
    hooks.worker_exit(None, worker(graceful_timeout=60, timeout=0))
    assert pools[0].timeouts[0] > 59.0


def test_the_environment_sets_the_grace_time(
    pools: list[Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEVENTPOOL_DRAIN_TIMEOUT", "2.5")
    pools.append(Pool())
    hooks.worker_exit(None, worker())
    assert 2.0 < pools[0].timeouts[0] <= 2.5


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_wrong_grace_time_is_told_and_the_pools_are_closed(
    pools: list[Pool], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("GEVENTPOOL_DRAIN_TIMEOUT", text)
    pools.append(Pool())
    with pytest.raises(ConfigError, match=r"GEVENTPOOL_DRAIN_TIMEOUT.*seconds"):
        hooks.worker_exit(None, worker())
    assert pools[0].closed == 1


def test_a_quick_shutdown_waits_a_second_at_most(pools: list[Pool]) -> None:
    pools.append(Pool())
    hooks.worker_int(worker())
    hooks.worker_exit(None, worker())
    assert 0.5 < pools[0].timeouts[0] <= 1.0


def test_a_quick_shutdown_of_the_parent_is_not_the_childs(
    pools: list[Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_quick_exit_of", os.getppid())
    pools.append(Pool())
    hooks.worker_exit(None, worker())
    assert pools[0].timeouts[0] > 20.0


def test_a_worker_that_vanished_does_not_close_the_masters_pools(pools: list[Pool]) -> None:
    pools.append(Pool())
    hooks.worker_exit(None, worker(pid=os.getpid() + 1))
    assert (pools[0].timeouts, pools[0].closed) == ([], 0)


def test_a_second_signal_while_draining_still_closes_every_pool(pools: list[Pool]) -> None:
    pools += [Pool(interrupt=SystemExit(0)), Pool()]
    with pytest.raises(SystemExit):
        hooks.worker_exit(None, worker())
    assert [pool.closed for pool in pools] == [1, 1]


def test_connections_that_never_come_back_are_told_with_the_pools_status(pools: list[Pool]) -> None:
    pools.append(Pool(drains=False))
    leaving = worker()
    hooks.worker_exit(None, leaving)
    assert leaving.log.warnings == ["geventpool: closing with connections in use: in use 1"]
    assert pools[0].closed == 1


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in gunicorn's master, whatever the test run itself has patched."""
    monkeypatch.setattr("gevent.monkey.is_module_patched", lambda name: False)


def gevent_worker_class() -> type:
    """A class that stems from gunicorn's gevent worker, as far as its name tells."""
    base = type("GeventWorker", (SimpleNamespace,), {"__module__": "gunicorn.workers.ggevent"})
    return type("OwnWorker", (base,), {})


@pytest.mark.usefixtures("unpatched")
def test_a_worker_that_does_not_patch_is_told_the_cure_once() -> None:
    first, second = worker(), worker(age=2)
    hooks.post_fork(None, first)
    hooks.post_fork(None, second)
    assert len(first.log.warnings) == 1
    assert 'worker_class = "gevent"' in first.log.warnings[0]
    assert second.log.warnings == []


@pytest.mark.usefixtures("unpatched")
def test_a_gevent_worker_patches_itself_and_needs_no_warning() -> None:
    forked = worker(cls=gevent_worker_class())
    hooks.post_fork(None, forked)
    assert forked.log.warnings == []


@pytest.mark.usefixtures("unpatched")
def test_an_application_preloaded_without_patches_is_told_the_cure() -> None:
    forked = worker(cls=gevent_worker_class(), preload_app=True)
    hooks.post_fork(None, forked)
    assert "monkey.patch_all()" in forked.log.warnings[0]


def test_an_application_preloaded_with_patches_needs_no_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gevent.monkey.is_module_patched", lambda name: True)
    forked = worker(cls=gevent_worker_class(), preload_app=True)
    hooks.post_fork(None, forked)
    assert forked.log.warnings == []
