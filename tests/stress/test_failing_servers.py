"""Servers that die, refuse, hang and come back, and networks that cut, stall and forget, under load.

After each: the books are right, the server has as many connections as the pool counts, and the whole
maximum can be borrowed at once. Times are asserted only where a limit is the subject, and then against
the time-out that would otherwise be waited for.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout

from geventpool import PoolTimeout
from geventpool.errors import ConnectTimeout
from geventpool.sqlalchemy import GeventPool
from tools.servers import MariaDB, PostgreSQL

from ..integration.dbapi import eventually, open_connection, run, set_autocommit
from ..integration.proxy import Proxy
from .scene import (
    CONNECT_TIMEOUT,
    DRIVERS,
    GREENLETS,
    LONGEST,
    MAX_SIZE,
    SLACK,
    STEP,
    TIMEOUT,
    Connects,
    Load,
    Scene,
    all_at_once,
    assert_served,
    outcome,
)
from .server_side import make_databases


@pytest.fixture(scope="module")
def url_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], str]]:
    yield from make_databases(request, "geventpool_failing", lambda engine: None)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(url_of: Callable[[str], str], driver: str) -> str:
    return url_of(driver)


@pytest.fixture(scope="module")
def proxy_to() -> Iterator[Callable[[str], Proxy]]:
    """One for each server, because a process takes a moment to start."""
    with contextlib.ExitStack() as running:

        @functools.cache
        def proxy_to(host: str, port: int) -> Proxy:
            return running.enter_context(Proxy(host, port))

        yield lambda url: proxy_to(make_url(url).host or "", make_url(url).port or 0)


@pytest.fixture
def proxy(url: str, proxy_to: Callable[[str], Proxy]) -> Iterator[Proxy]:
    proxy = proxy_to(url)
    yield proxy
    proxy.resume()
    proxy.accept()
    proxy.cut()
    assert eventually(lambda: proxy.figures().live == 0)


# The shared servers are asked for, because they skip loudly where there are none.
@pytest.mark.parametrize(
    ("driver", "shared", "kind"),
    [("pymysql", "mariadb", MariaDB), ("psycopg", "postgresql", PostgreSQL)],
)
def test_while_a_server_is_down_callers_fail_soon_and_when_it_is_back_none_fails(
    request: pytest.FixtureRequest, driver: str, shared: str, kind: Callable[[], Any]
) -> None:
    request.getfixturevalue(shared)
    with kind() as server, Scene(server.url(driver)) as scene:
        load = Load(scene)
        down_at, up_at = scene.survive_a_kill(server, load, 2 * STEP)
        assert_failed_soon(load, scene.connects, down_at, up_at)
        assert_recovered(load, scene.connects, up_at)
        scene.assert_right()


def assert_failed_soon(load: Load, connects: Connects, down_at: float, up_at: float) -> None:
    errors = load.errors()
    kinds = {type(one.error) for one in errors}
    assert kinds == {OperationalError}, "the database's own error, and not the pool's time-out"
    assert min(one.ended for one in errors) >= down_at
    longest = max(one.ended - one.began for one in load.ended)
    print(f"{len(errors)} errors, the longest request took {longest:.3f} s")
    assert longest < STEP + SLACK, "nobody waits for what does not come"
    given_up_at = down_at + STEP  # as long as a restart takes, nobody in line is refused
    attempts = sum(given_up_at < began < up_at for began in connects.begun)
    refused = sum(given_up_at < one.ended < up_at for one in errors)
    print(f"{attempts} attempts while down, {refused} requests refused")
    assert attempts >= 3, "nobody waits for long"
    assert refused > GREENLETS // 2 * attempts, "they share the attempts"


def assert_recovered(load: Load, connects: Connects, up_at: float) -> None:
    first = min(one.ended for one in load.ended if one.error is None and one.ended > up_at)
    last = max(one.ended for one in load.errors())
    print(f"first success {first - up_at:.3f} s, last error {last - up_at:.3f} s after the return")
    assert [began - up_at for began in connects.failed if began > up_at] == []
    assert [one for one in load.errors() if one.began > up_at] == []
    assert max(first, last) - up_at < STEP + SLACK


def test_all_connections_killed_by_the_server_cost_one_error_where_they_were_in_use_and_none_idle(
    url: str,
) -> None:
    with Scene(url) as scene:
        scene.fill()
        in_use = scene.lend(2)
        assert scene.kill_all() == MAX_SIZE
        scene.assert_only_used_ones_fail(in_use)


def test_all_connections_killed_under_load_cost_at_most_one_error_each(url: str) -> None:
    with Scene(url) as scene:
        scene.fill()
        load = Load(scene, pause=0.002)
        gevent.sleep(0.1)
        killed = scene.kill_all()
        gevent.sleep(0.2)
        load.stop()
        assert killed == MAX_SIZE
        assert len(load.errors()) <= killed
        assert {type(one.error) for one in load.errors()} <= {OperationalError}
        scene.assert_right()


def test_connections_reset_by_the_network_cost_one_error_where_they_were_in_use_and_none_idle(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy) as scene:
        scene.fill()
        in_use = scene.lend(2)
        proxy.cut()
        scene.assert_only_used_ones_fail(in_use)


ROOM = 3


def administer(driver: str, url: str, *statements: str) -> list[Any]:
    """Runs them with all rights. Returns what the last one gives."""
    with contextlib.closing(open_connection(driver, url)) as administrator:
        set_autocommit(driver, administrator, True)
        return [run(administrator, statement) for statement in statements][-1]


@pytest.fixture
def limited(url: str, driver: str) -> Iterator[str]:
    """The URL of a user whom the server allows ROOM connections."""
    where = make_url(url)
    if driver == "pymysql":
        made = [
            "create or replace user few@'%' identified by 'few'",
            f"grant usage on *.* to few@'%' with max_user_connections {ROOM}",
            f"grant select on {where.database}.* to few@'%'",
        ]
        theirs = "select id from information_schema.processlist where user = 'few'"
    else:
        made = [
            "drop role if exists few",
            f"create role few login password 'few' connection limit {ROOM}",
        ]
        theirs = "select pid from pg_stat_activity where usename = 'few'"
    administer(driver, url, *made)
    yield where.set(username="few", password="few").render_as_string(hide_password=False)
    # Those of the next test are to find all the room that there is.
    assert eventually(lambda: not administer(driver, url, theirs))
    administer(driver, url, "drop user few")


@pytest.fixture
def others(limited: str, driver: str) -> Iterator[contextlib.ExitStack]:
    """Somebody else's connections, which take all the room that there is."""
    with contextlib.ExitStack() as others:
        for _ in range(ROOM):
            others.enter_context(contextlib.closing(open_connection(driver, limited)))
        yield others


class Limited(Scene):
    """A pool of a user who may have few connections; the observer is another user."""

    def __init__(self, url: str, limited: str, **settings: Any) -> None:
        super().__init__(url, **settings)
        self.engine.dispose()
        self.engine = create_engine(
            limited,
            poolclass=GeventPool,
            **{"max_size": MAX_SIZE, "min_idle": MAX_SIZE, "pool_timeout": TIMEOUT, **settings},
        )
        event.listen(self.engine, "do_connect", self.connects.connect)


def test_a_server_with_less_room_than_the_pool_serves_everybody_from_what_comes_back(
    url: str, limited: str
) -> None:
    with Limited(url, limited) as scene:
        with scene.watching():
            assert_served(all_at_once(scene, requests=10))
        assert scene.most <= ROOM + 1, "one that is just being refused may be seen"
        assert scene.connects.failed, "the pool has met the limit"
        assert len(scene.connects.failed) < GREENLETS, "and does not run against it all the time"
        scene.assert_right(maximum=ROOM)


def test_when_somebody_else_has_all_the_room_callers_wait_until_there_is_some(
    url: str, limited: str, others: contextlib.ExitStack
) -> None:
    with Limited(url, limited) as scene:
        workers = all_at_once(scene)
        gevent.sleep(0.5)
        assert not any(worker.dead for worker in workers), "nobody fails"
        assert scene.pool.stats().waiting == GREENLETS
        assert len(scene.connects.begun) < 10, "there is a pause between the attempts"
        others.close()
        began = time.monotonic()
        assert_served(workers)
        print(f"served {time.monotonic() - began:.3f} s after there was room")
        assert time.monotonic() - began < STEP + SLACK
        scene.assert_right(maximum=ROOM)


def test_when_somebody_else_keeps_all_the_room_callers_are_told_so_at_their_deadline(
    url: str, limited: str, others: contextlib.ExitStack, driver: str
) -> None:
    with Limited(url, limited, pool_timeout=0.3) as scene:
        workers = all_at_once(scene)
        gevent.joinall(workers, timeout=LONGEST)
        words = "max_user_connections" if driver == "pymysql" else "too many connections for role"
        for worker in workers:
            assert isinstance(worker.value, PoolTimeout)
            assert isinstance(worker.value, SQLAlchemyTimeout)
            assert worker.value.why == "saturated"
            assert words in str(worker.value)
        others.close()
        assert eventually(lambda: outcome(scene.request) is None)
        scene.assert_right(maximum=ROOM)


@pytest.mark.parametrize("at_connect", [True, False], ids=["no answer to SYN", "no greeting"])
def test_connects_that_hang_are_bounded_and_hinder_nobody_who_has_a_connection(
    url: str, proxy: Proxy, at_connect: bool
) -> None:
    with Scene(url, proxy, connect_timeout=CONNECT_TIMEOUT) as scene:
        is_over = [False]
        holders = [gevent.spawn(hold, scene, is_over) for _ in range(2)]
        assert eventually(lambda: scene.pool.stats().in_use == 2)
        proxy.black_hole(at_connect=at_connect)
        with pytest.raises(gevent.Timeout) as caught:
            with gevent.Timeout(0.1) as limit:
                scene.request()
        assert caught.value is limit
        began = time.monotonic()
        told = outcome(scene.request)
        print(f"the attempt was given up after {time.monotonic() - began:.3f} s")
        assert time.monotonic() - began < CONNECT_TIMEOUT + STEP + SLACK
        assert isinstance(told, ConnectTimeout)
        assert isinstance(told, SQLAlchemyTimeout)
        scene.pool.configure(connect_timeout=LONGEST)
        proxy.accept()
        began = time.monotonic()
        others = scene.lend(MAX_SIZE - 2)
        print(f"recovered {time.monotonic() - began:.3f} s after the network")
        assert time.monotonic() - began < STEP + SLACK
        for connection in others:
            connection.close()
        is_over[0] = True
        gevent.joinall(holders, timeout=LONGEST, raise_error=True)
        assert all(holder.value > 20 for holder in holders), "who had a connection went on"
        scene.assert_right()


def hold(scene: Scene, is_over: list[bool]) -> int:
    """Keeps one connection and uses it. Returns how often."""
    with scene.engine.connect() as connection:
        for count in itertools.count():
            scene.ask(connection)
            gevent.sleep(0.01)
            if is_over[0]:
                return count
    raise AssertionError("never reached")


def test_while_all_connects_hang_one_is_tried_at_a_time_and_the_others_are_told_at_once(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy, connect_timeout=CONNECT_TIMEOUT) as scene:
        proxy.black_hole()
        assert isinstance(outcome(scene.request), ConnectTimeout)
        assert len(scene.connects.begun) == 1
        load = Load(scene)
        gevent.sleep(1.5 * CONNECT_TIMEOUT)
        tried, refused = len(scene.connects.begun) - 1, len(load.errors())
        print(f"{tried} attempts, {refused} requests refused")
        assert refused > 2 * GREENLETS * (1 + tried), "most are told the last error"
        assert len(load.errors()) == len(load.ended)
        proxy.accept()
        up_at = time.monotonic()
        # An attempt into the hole may be under way.
        assert load.wait_for_recovery(CONNECT_TIMEOUT + STEP + SLACK)
        load.stop()
        first = min(one.ended for one in load.ended if one.error is None) - up_at
        last = max(one.ended for one in load.errors()) - up_at
        print(f"first success {first:.3f} s, last error {last:.3f} s after the return")
        scene.assert_right()


def test_a_connect_that_was_given_up_is_closed_though_its_error_is_kept(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy, connect_timeout=0.2) as scene:
        proxy.black_hole()
        kept = outcome(scene.request)
        assert isinstance(kept, ConnectTimeout)
        assert eventually(lambda: proxy.figures().live == 0), "its socket is still open"
        scene.pool.configure(connect_timeout=LONGEST)
        proxy.accept()
        # Until the pause is over, whoever asks is told the last error.
        assert eventually(lambda: outcome(scene.request) is None, LONGEST)
        scene.assert_right()


def test_a_reset_in_the_middle_of_a_result_costs_one_error_and_the_next_request_none(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy) as scene:
        scene.fill()
        proxy.cut_after(100_000)
        much = text("select repeat('x', 2000000)")

        is_full = Event()  # else the first may have failed before the last has asked

        def read() -> int:
            with scene.engine.connect() as connection:
                if scene.pool.stats().in_use == MAX_SIZE:
                    is_full.set()
                is_full.wait()
                return len(connection.execute(much).scalar_one())

        readers = [gevent.spawn(outcome, read) for _ in range(MAX_SIZE)]
        gevent.joinall(readers, timeout=LONGEST)
        assert [type(reader.value) for reader in readers] == [OperationalError] * MAX_SIZE
        assert [read() for _ in range(10)] == [2_000_000] * 10
        scene.assert_right()


def test_links_that_a_restarted_host_has_forgotten_are_found_by_a_ping_and_cost_no_error(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy) as scene:
        scene.fill()
        proxy.half_open(resets=True)
        scene.age()
        assert scene.pool.stats().idle == MAX_SIZE, "nothing has told the pool"
        assert_served(all_at_once(scene))
        scene.assert_right()


PATIENCE = (
    2.0  # for a ping; and what replaces the link is to be opened in it, on a busy machine too
)


def test_links_that_the_network_has_forgotten_cost_no_caller_the_whole_time_out_of_the_pool(
    url: str, proxy: Proxy
) -> None:
    # Nothing ever answers the ping.
    with Scene(url, proxy, connect_timeout=PATIENCE) as scene:
        scene.fill()
        proxy.half_open()
        scene.age()
        assert_served(all_at_once(scene), MAX_SIZE * PATIENCE + STEP + SLACK)
        scene.assert_right()


def test_who_meets_a_link_that_the_network_has_forgotten_waits_for_one_ping_and_not_for_each_link(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy, connect_timeout=PATIENCE) as scene:
        scene.fill()
        proxy.half_open()
        scene.age()
        scene.request()
        assert scene.pool.stats().pings == 1
        scene.assert_right()


@pytest.mark.parametrize("driver", ["pymysql"])  # the one that has such a setting
def test_links_that_the_network_has_forgotten_are_found_by_the_drivers_own_time_out(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy, connect_args={"read_timeout": 1.0}) as scene:
        scene.fill()
        proxy.half_open()
        scene.age()
        assert_served(all_at_once(scene))
        scene.assert_right()


def test_who_gives_up_on_a_forgotten_link_does_so_as_he_said_and_leaves_the_pool_right(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy, cancel_deadline=0.3) as scene:
        scene.fill()
        proxy.half_open()
        scene.age()
        for _ in range(MAX_SIZE):
            with gevent.Timeout(0.1) as limit:
                told = outcome(scene.request)
            assert told is limit
        scene.assert_right()


def test_what_is_idle_for_longer_than_ping_after_is_pinged_however_short_that_is(url: str) -> None:
    with Scene(url, ping_after=0.1) as scene:
        scene.fill(1)
        gevent.sleep(0.2)
        scene.request()
        assert scene.pool.stats().pings == 1


def test_callers_that_give_up_in_a_stall_are_killed_as_they_said_and_leave_no_query_behind(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy) as scene:
        # PyMySQL's file kills a query only where it is sure that a new connection leads to the same
        # server, and a proxy hides that: the place is held until the query is over.
        nap = 3.0 if scene.is_mysql else LONGEST
        scene.fill()
        limits = [gevent.Timeout() for _ in range(MAX_SIZE)]
        victims = [gevent.spawn(outcome, lambda: scene.request(nap)) for _ in limits]
        assert eventually(lambda: scene.observer.at_work() == MAX_SIZE)
        proxy.stall()
        for victim, limit in zip(victims, limits, strict=True):
            gevent.kill(victim, limit)  # as its timer would
        gevent.joinall(victims, timeout=LONGEST)
        assert [victim.value for victim in victims] == limits
        stats = scene.pool.stats()
        assert (stats.size, stats.closing) == (MAX_SIZE, MAX_SIZE), "the server is still at work"
        with scene.watching():
            began = time.monotonic()
            workers = all_at_once(scene)
            gevent.sleep(0.2)
            proxy.resume()
            assert_served(workers)
            print(f"all are served {time.monotonic() - began:.3f} s later")
        stats = scene.pool.stats()
        assert (stats.cancelled, stats.cancel_failures) == (MAX_SIZE, 0)
        # Where all are abandoned and the database has no cancel message, one is opened beside the pool.
        assert scene.most <= MAX_SIZE + scene.is_mysql
        scene.assert_right()


def test_a_stall_beyond_the_deadline_for_cancelling_gives_the_places_back(
    url: str, proxy: Proxy
) -> None:
    with Scene(url, proxy, cancel_deadline=2.0) as scene:
        scene.fill()
        proxy.stall()
        for _ in range(MAX_SIZE):
            with pytest.raises(gevent.Timeout):
                with gevent.Timeout(0.05):
                    scene.request()
        stats = scene.pool.stats()
        # One of PyMySQL's own is sent to cancel the others, and hears nothing.
        assert (stats.in_use, stats.closing) == (scene.is_mysql, MAX_SIZE - scene.is_mysql)
        # But for an attempt to connect, which PyMySQL's next cancel asks for where there is room.
        most = int(scene.is_mysql)
        assert eventually(lambda: scene.pool.stats().size == scene.pool.stats().opening <= most)
        stats = scene.pool.stats()
        assert stats.cancel_failures == MAX_SIZE - scene.is_mysql
        assert stats.closed.get("dead", 0) == scene.is_mysql
        proxy.resume()
        scene.assert_right()
