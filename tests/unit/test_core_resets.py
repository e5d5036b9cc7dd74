"""What happens to a pool while something that was given back waits for the answer to its reset."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import getcurrent
from gevent.event import Event

from geventpool import ConnectionPool, base_pool
from geventpool.config import make_config
from geventpool.core.handlers import Handlers
from geventpool.core.pool import ResourcePool
from geventpool.errors import ConfigError, PoolClosed, PoolTimeout
from geventpool.testing import FakeClock, settle

from .test_core_pool import switches_of


class Slow(Handlers):
    """Resources whose reset is answered when the test says so."""

    def __init__(self) -> None:
        self.opened = 0
        self.sent: list[int] = []
        self.closed: list[int] = []
        self.answers: dict[int, Event] = {}
        self.error: BaseException | None = None
        self.is_behind = True

    def open(self) -> int:
        self.opened += 1
        return self.opened

    def close(self, resource: int, cause: str) -> None:
        self.closed.append(resource)

    def resets_behind(self, resource: int) -> bool:
        return self.is_behind

    def reset(self, resource: int) -> bool:
        self.sent.append(resource)
        answer = self.answers[resource] = Event()
        answer.wait()
        if self.error is not None:
            raise self.error
        return True


@pytest.fixture
def handlers() -> Slow:
    return Slow()


@pytest.fixture
def make(handlers: Slow) -> Iterator[Callable[..., ResourcePool]]:
    pools: list[ResourcePool] = []

    def make(**settings: Any) -> ResourcePool:
        config = make_config(**settings)
        pools.append(ResourcePool(handlers, config.policy(), config))
        return pools[-1]

    yield make
    for pool in pools:
        for answer in handlers.answers.values():
            answer.set()
        pool.close()
        pool.ledger.check()


def test_who_gives_back_goes_on_when_the_reset_is_sent_and_before_it_is_answered(
    make, handlers
) -> None:
    pool = make()
    entry = pool.acquire(1)
    assert switches_of(lambda: pool.release(entry)) == 0
    assert handlers.sent == [1]
    assert (pool.stats().in_use, pool.stats().resetting, pool.stats().idle) == (1, 1, 0)
    handlers.answers[1].set()
    settle()
    assert (pool.stats().in_use, pool.stats().resetting, pool.stats().idle) == (0, 0, 1)
    assert pool.stats().resets == 1


def test_sequential_clients_wait_for_a_reset_and_open_nothing(handlers) -> None:
    clock, config = FakeClock(), make_config()
    pool = ResourcePool(handlers, config.policy(), config, clock=clock)

    def open_slowly() -> int:
        clock.sleep(1.0)
        return Slow.open(handlers)

    handlers.open = open_slowly
    first = gevent.spawn(pool.acquire, 5)
    clock.advance(1.0)
    entry = first.get(timeout=5)
    for _ in range(3):
        pool.release(entry)
        asked = gevent.spawn(pool.acquire, 5)  # another greenlet
        settle()
        assert not asked.ready()
        handlers.answers[1].set()
        assert asked.get(timeout=5) is entry
        pool.release(entry)
        gevent.spawn_later(0, handlers.answers[1].set)
        assert pool.acquire(5) is entry  # the same greenlet
    assert pool.stats().opening == 0
    pool.release(entry, is_clean=True)
    clock.advance(5.0)
    assert handlers.opened == 1
    pool.close()


def test_a_greenlet_waits_for_its_own_reset_even_if_another_is_idle(make, handlers) -> None:
    pool = make()
    one, other = pool.acquire(1), pool.acquire(1)
    handlers.is_behind = False
    pool.release(other, is_clean=True)
    handlers.is_behind = True
    pool.release(one)
    assert gevent.spawn(pool.acquire, 1).get(timeout=1) is other  # another need not wait
    order: list[str] = []
    gevent.spawn_later(0, lambda: (order.append("answered"), handlers.answers[1].set()))
    assert pool.acquire(5) is one
    assert order == ["answered"]


def test_nobody_in_line_is_served_before_the_answer(make, handlers) -> None:
    pool = make(max_size=1)
    entry = pool.acquire(1)
    waiting = gevent.spawn(pool.acquire, 5)
    settle()
    pool.release(entry)
    settle()
    assert not waiting.ready()
    handlers.answers[1].set()
    assert waiting.get(timeout=5) is entry


def test_one_that_does_not_wait_at_all_returns_to_its_caller(make, handlers) -> None:
    pool = make()
    entry = pool.acquire(1)
    handlers.reset = lambda resource: True
    assert switches_of(lambda: pool.release(entry)) == 0
    assert (pool.stats().resetting, pool.stats().idle) == (0, 1)


def test_timeout_0_never_switches_and_finds_nothing_that_is_being_reset(make, handlers) -> None:
    pool = make(max_size=1)
    pool.release(pool.acquire(1))

    def ask() -> None:
        with pytest.raises(PoolTimeout):
            pool.acquire(0)

    assert switches_of(ask) == 0


def test_an_error_closes_it_and_reaches_nobody_but_the_log(make, handlers, caplog) -> None:
    pool = make()
    pool.release(pool.acquire(1))
    handlers.error = RuntimeError("the link is gone")
    handlers.answers[1].set()
    settle()
    assert handlers.closed == [1]
    assert pool.stats().closed == {"reset failed": 1}
    assert (pool.stats().size, pool.stats().resetting) == (0, 0)
    assert "the link is gone" in caplog.text


def test_a_reset_that_is_never_answered_is_given_up_and_keeps_nobody_else(
    make, handlers, caplog
) -> None:
    pool = make(cancel_deadline=0.05, max_size=2)
    pool.release(pool.acquire(1))
    with caplog.at_level(logging.WARNING, "geventpool"):
        other = gevent.spawn(pool.acquire, 5).get(timeout=5)
        assert other.resource == 2 or handlers.closed == [1]
        mine = pool.acquire(5)
    assert mine.resource != 1
    assert handlers.closed == [1]
    assert "gave up resetting" in caplog.text
    assert pool.stats().resetting == 0


def test_own_wait_ends_with_its_time_out(make, handlers) -> None:
    pool = make(max_size=1)
    pool.release(pool.acquire(1))
    with pytest.raises(PoolTimeout):
        pool.acquire(0.01)
    assert (pool.stats().resetting, pool.stats().waiting) == (1, 0)
    handlers.answers[1].set()
    assert pool.acquire(5).resource == 1


def test_a_kill_of_who_waits_for_his_own_reset_leaves_nothing_behind(make, handlers) -> None:
    pool = make(max_size=1)

    def work() -> None:
        pool.release(pool.acquire(1))
        pool.acquire(5)

    worker = gevent.spawn(work)
    settle()
    worker.kill()
    handlers.answers[1].set()
    settle()
    assert (pool.stats().idle, pool.stats().in_use) == (1, 0)
    assert pool.resets._waiting == []


def test_who_has_given_back_may_be_killed_without_harm_to_the_reset(make, handlers) -> None:
    pool = make()
    worker = gevent.spawn(lambda: (pool.release(pool.acquire(1)), Event().wait()))
    settle()
    worker.kill()
    handlers.answers[1].set()
    settle()
    assert (pool.stats().idle, pool.stats().closed) == (1, {})


def test_all_greenlets_may_be_killed_and_the_reset_goes_on(make, handlers) -> None:
    pool = make()
    pool.release(pool.acquire(1))
    import gc

    gevent.killall([one for one in gc.get_objects() if issubclass(type(one), gevent.Greenlet)])
    handlers.answers[1].set()
    settle()
    assert pool.stats().idle == 1


@pytest.mark.parametrize("end", ["dispose", "close"])
def test_dispose_and_close_close_what_is_being_reset_before_they_return(
    make, handlers, end
) -> None:
    pool = make()
    pool.release(pool.acquire(1))
    gevent.spawn_later(0, handlers.answers[1].set)
    getattr(pool, end)()
    assert handlers.closed == [1]
    assert pool.stats().size == 0


def test_what_comes_after_close_is_refused(make, handlers) -> None:
    pool = make()
    pool.release(pool.acquire(1))
    gevent.spawn_later(0, handlers.answers[1].set)
    pool.close()
    with pytest.raises(PoolClosed):
        pool.acquire(1)


def test_a_cap_that_was_lowered_meanwhile_closes_it(make, handlers) -> None:
    pool = make(max_size=2)
    kept = pool.acquire(1)
    pool.release(pool.acquire(1))
    pool.grant(1)
    assert handlers.closed == []
    handlers.answers[2].set()
    settle()
    assert handlers.closed == [2]
    assert pool.stats().size == 1
    assert kept.resource == 1


def test_a_drain_waits_for_it(make, handlers) -> None:
    pool = make()
    pool.release(pool.acquire(1))
    assert not pool.drain(0.001)
    gevent.spawn_later(0, handlers.answers[1].set)
    assert pool.drain(5)


def test_what_is_expired_meanwhile_is_closed(make, handlers) -> None:
    pool = make()
    pool.release(pool.acquire(1))
    pool.expire_all()
    handlers.answers[1].set()
    settle()
    assert handlers.closed == [1]


def test_a_hang_up_meanwhile_makes_it_suspect_and_discard_ends_it(make, handlers) -> None:
    pool = make()
    entry = pool.acquire(1)
    pool.release(entry)
    pool.discard(entry, "dead")
    settle()
    assert handlers.closed == [1]
    handlers.answers[1].set()
    settle()
    assert (pool.stats().size, pool.stats().resetting) == (0, 0)


def test_its_permit_is_kept_until_it_is_closed(make, handlers) -> None:
    pool = make()

    class Permits:
        size = demand = 2
        granted = 0
        is_short = False

        def take(self) -> bool:
            self.granted += 1
            return True

        def give_back(self) -> None:
            self.granted -= 1

        def changed(self) -> None:
            pass

    permits = Permits()
    pool.limit_by(permits)
    pool.release(pool.acquire(1))
    assert permits.granted == 1
    handlers.error = RuntimeError("x")
    handlers.answers[1].set()
    settle()
    assert permits.granted == 0


def test_another_thread_resets_before_it_goes_on(make, handlers) -> None:
    pool = make()
    entry = pool.acquire(1)
    sent_in: list[int] = []

    def reset(resource: int) -> bool:
        sent_in.append(threading.get_ident())
        return True

    handlers.reset = reset
    gevent.get_hub().threadpool.apply(lambda: pool.release(entry))
    settle()
    assert sent_in != [threading.get_ident()]
    assert pool.stats().idle == 1


def test_a_callback_in_the_hub_may_give_back(make, handlers) -> None:
    pool = make()
    entry = pool.acquire(1)
    gevent.get_hub().loop.run_callback(pool.release, entry)
    settle()
    assert pool.stats().resetting == 1
    handlers.answers[1].set()
    settle()
    assert pool.stats().idle == 1


def test_the_child_of_a_fork_forgets_it(make, handlers) -> None:
    pool = make()
    pool.release(pool.acquire(1))
    process = gevent.os.fork()
    if not process:
        try:
            is_right = pool.stats().size == 0 and pool.stats().resetting == 0
            handlers.answers[1].set()
            settle()
            is_right &= pool.stats().size == 0 and handlers.closed == []
            os._exit(0 if is_right else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    handlers.answers[1].set()
    settle()
    assert pool.stats().idle == 1


def test_the_reset_runs_in_the_context_of_who_gives_back(make, handlers) -> None:
    import contextvars

    name = contextvars.ContextVar("name", default="nobody's")
    seen: list[Any] = []
    pool = make()
    entry = pool.acquire(1)

    def reset(resource: int) -> bool:
        seen.append((name.get(), getcurrent()))
        return True

    handlers.reset = reset
    name.set("mine")
    pool.release(entry)
    assert seen[0][0] == "mine"
    assert seen[0][1] is not getcurrent()


def test_an_interrupt_while_it_is_sent_reaches_the_caller_and_closes_it(make, handlers) -> None:
    pool = make()
    entry = pool.acquire(1)

    def reset(resource: int) -> bool:
        raise KeyboardInterrupt

    handlers.reset = reset
    with pytest.raises(KeyboardInterrupt):
        pool.release(entry)
    settle()
    assert handlers.closed == [1]
    assert pool.stats().resetting == 0


def test_what_the_reset_waits_for_may_come_before_the_hub_has_been_there(make, handlers) -> None:
    pool = make(cancel_deadline=1.0)
    woken_with: list[object] = []

    def reset(resource: int) -> bool:
        gevent.sleep(0)
        gevent.get_hub().loop.run_callback(getcurrent().switch, "it")
        woken_with.append(gevent.get_hub().switch())
        return True

    handlers.reset = reset
    for _ in range(2):
        pool.release(pool.acquire(1))
        settle()
    assert woken_with == ["it", "it"]
    assert (pool.stats().idle, pool.stats().closed) == (1, {})


def test_the_first_wait_may_be_the_one_whose_answer_comes_first(make, handlers) -> None:
    pool = make(cancel_deadline=1.0)
    woken_with: list[object] = []

    def reset(resource: int) -> bool:
        gevent.get_hub().loop.run_callback(getcurrent().switch, "it")
        woken_with.append(gevent.get_hub().switch())
        return True

    handlers.reset = reset
    entry = pool.acquire(1)
    assert switches_of(lambda: pool.release(entry)) == 0
    settle()
    assert woken_with == ["it"]
    assert (pool.stats().idle, pool.stats().closed) == (1, {})


@pytest.mark.parametrize("end", ["dispose", "close"])
@pytest.mark.parametrize("by", ["kill", "timeout"])
def test_dispose_and_close_that_are_interrupted_in_their_wait_are_done_all_the_same(
    make, handlers, end, by
) -> None:
    pool = make()
    one, other = pool.acquire(1), pool.acquire(1)
    pool.release(one, is_clean=True)
    pool.release(other)
    ending = gevent.spawn(getattr(pool, end))
    settle()
    assert not ending.ready()
    ending.kill(gevent.GreenletExit if by == "kill" else gevent.Timeout)
    settle()
    assert handlers.closed == [1]
    assert pool.is_closed == (end == "close")
    handlers.answers[2].set()
    settle()
    assert handlers.closed == [1, 2]
    assert pool.stats().size == 0


@pytest.mark.parametrize("end", ["dispose", "close"])
def test_dispose_and_close_wait_for_what_is_reset_by_then_and_not_for_what_follows(
    make, handlers, end
) -> None:
    pool = make()
    one, other = pool.acquire(1), pool.acquire(1)
    pool.release(one)
    ending = gevent.spawn(getattr(pool, end))
    settle()
    pool.release(other)
    handlers.answers[1].set()
    ending.get(timeout=5)
    assert handlers.closed == [1]
    assert pool.stats().resetting == 1
    handlers.answers[2].set()
    settle()
    assert handlers.closed == [1, 2]


def test_a_second_release_is_a_bug_also_before_the_answer(make, handlers) -> None:
    pool = make()
    entry = pool.acquire(1)
    pool.release(entry)
    with pytest.raises(AssertionError, match="bug: released an entry that is being reset"):
        pool.release(entry)
    assert handlers.sent == [1]
    handlers.answers[1].set()
    settle()
    assert (pool.stats().idle, pool.stats().resetting) == (1, 0)


def test_a_time_out_that_is_no_number_is_refused_also_before_the_answer(make, handlers) -> None:
    pool = make()
    pool.release(pool.acquire(1))
    with pytest.raises(ConfigError):
        pool.acquire(float("nan"))


def test_who_has_not_asked_for_it_pays_no_look_at_the_driver(driver, monkeypatch) -> None:
    pool = ConnectionPool(driver.connect)
    with pool.connection() as connection:
        monkeypatch.setattr(base_pool, "drivers", None)
        assert not pool.core.handlers.resets_behind(connection)
        monkeypatch.undo()


def test_a_greenlet_that_counts_on_its_visits_to_the_hub_goes_there_and_back_as_often(
    make, handlers
) -> None:
    visits: list[str] = []

    class Console(gevent.Greenlet):
        """As gevent's backdoor, which has `sys.stdout` of its own while it is not in the hub."""

        def switch(self, *value: Any) -> Any:
            visits.append("back")
            return super().switch(*value)

        def switch_out(self) -> None:
            visits.append("to hub")

    pool = make()
    console = Console(lambda: (pool.release(pool.acquire(1)), gevent.sleep(0)))
    console.start()
    settle()
    assert console.successful()
    assert visits == ["back", *["to hub", "back"] * visits.count("to hub")]
    handlers.answers[1].set()
    settle()
    assert pool.stats().idle == 1


def test_who_waits_for_his_own_reset_in_the_child_of_a_fork_is_told_whose_pool_it_was(
    make, handlers
) -> None:
    pool = make()
    worker = gevent.spawn(lambda: (pool.release(pool.acquire(1)), pool.acquire(60)))
    settle()
    assert pool.stats().resetting == 1
    process = gevent.os.fork()
    if not process:
        try:
            handlers.answers[1].set()
            settle()
            is_told = isinstance(worker.exception, PoolClosed) and handlers.opened == 1
            os._exit(0 if is_told else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    handlers.answers[1].set()
    settle()
    assert worker.successful()
    assert (pool.stats().in_use, pool.stats().opened) == (1, 1)


def test_the_resets_own_greenlet_may_be_killed_before_and_after_it_was_in_the_hub(
    make, handlers
) -> None:
    pool = make()
    for turns in (0, 1):
        pool.release(pool.acquire(1))
        [greenlet] = pool.resetting.values()
        for _ in range(turns):
            settle()
        gevent.kill(greenlet)
        settle()
        assert greenlet.dead
        assert handlers.closed == list(range(1, turns + 2))
    assert (pool.stats().size, pool.stats().closed) == (0, {"reset failed": 2})
