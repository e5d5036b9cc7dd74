"""How a child notices that it was forked, and that everything begins anew whatever fails."""

from __future__ import annotations

import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.monkey import get_original
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from geventpool import ConnectionPool, PoolClosed
from geventpool.core import registry
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeDriver, settle

pytestmark = pytest.mark.usefixtures("no_pools_of_other_tests")

start_thread = get_original("_thread", "start_new_thread")


@pytest.fixture(autouse=True)
def only_pools_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_at_fork", [])


def a_pool(driver: FakeDriver, **settings: Any) -> ConnectionPool:
    return ConnectionPool(driver.connect, max_size=4, **settings)


def fork() -> None:
    """What the kernel does in the child of a fork of which Python is not told."""
    registry.unforked.value = 0


WAYS: dict[str, Callable[[ConnectionPool, list[Any]], object]] = {
    "acquire": lambda pool, lent: pool.connection().close(),
    "release": lambda pool, lent: lent[0].close(),
    "discard": lambda pool, lent: lent[0].invalidate(),
    "a finalizer": lambda pool, lent: lent.clear(),
    "a use": lambda pool, lent: lent[0].number,
    "the figures": lambda pool, lent: pool.stats(),
    "settings": lambda pool, lent: pool.resize(3),
    "draining": lambda pool, lent: pool.drain(0),
    "the end": lambda pool, lent: pool.close(),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_the_child_does_first_its_pool_is_empty_and_says_nothing(
    driver: FakeDriver, way: str
) -> None:
    pool = a_pool(driver)
    lent = [pool.connection(), pool.connection()]
    pool.connection().close()
    parents = list(pool.core.ledger.entries)
    assert len(parents) == 3
    said = [list(one.calls) for one in driver.connections]
    fork()
    WAYS[way](pool, lent)
    assert registry.unforked
    assert not pool.core.ledger.entries & set(parents)
    for connection in lent:
        connection.close()
    settle()
    pool.close()
    settle()
    assert [one.calls for one in driver.connections[:3]] == said
    assert {entry.state for entry in parents} == {"closed"}


def test_what_cancels_for_the_parent_borrows_nothing_in_the_child(driver: FakeDriver) -> None:
    """It goes on there, too; nobody owns the child's pool yet, and so nothing could come back to it."""
    pool = a_pool(driver)
    pool.connection().close()
    fork()
    registry.look_for_fork()
    assert pool.core.acquire_first(1) is None
    assert (driver.attempts, pool.stats().size) == (1, 0)


def test_an_open_that_had_not_begun_at_the_fork_is_not_begun_in_the_child(driver, clock) -> None:
    """As of a pool that is warmed up, after which the process forks without a turn of the hub."""
    driver.connect_time = 1
    pool = a_pool(driver, clock=clock)
    pool.warm_up()
    assert pool.stats().opening == 1
    fork()
    registry.look_for_fork()
    settle()
    pool.core.ledger.check()
    assert (driver.attempts, pool.stats().size) == (0, 0)


def test_who_was_in_line_at_the_fork_is_not_served_with_what_is_the_parents(
    driver: FakeDriver,
) -> None:
    pool = ConnectionPool(driver.connect, max_size=1)
    lent = pool.core.acquire(None)
    waiting = gevent.spawn(pool.connection)
    settle()
    fork()
    pool.core.release(lent, is_clean=True)  # nothing is sent by it, so it does not look
    with pytest.raises(PoolClosed):
        waiting.get()
    assert lent.state == "closed"
    assert pool.stats().size == 0


def test_a_connection_of_the_parent_can_be_invalidated_and_nothing_goes_on_for_ever(
    driver: FakeDriver,
) -> None:
    pool = a_pool(driver)
    lent = pool.connection()
    fork()
    registry.look_for_fork()
    posted = len(pool.core.ledger.entries)
    lent.invalidate()
    settle()
    assert posted == 0
    assert pool.core.mailbox is None


def test_what_fails_in_one_pool_hinders_neither_that_pool_nor_the_others(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pools = [a_pool(driver) for _ in range(3)]
    for pool in pools:
        pool.connection().close()

    def fail(*_: object) -> None:
        raise RuntimeError("a surprise")

    monkeypatch.setattr(pools[0].core.handlers, "fileno", fail)
    monkeypatch.setattr(type(pools[1].core.policy), "fresh", fail)
    monkeypatch.setattr(pools[2].core.upkeep, "abort", fail)
    called: list[int] = []
    registry.at_fork(fail)
    registry.at_fork(lambda: called.append(1))
    fork()
    registry.look_for_fork()
    assert [pool.stats().size for pool in pools] == [0, 0, 0]
    assert called == [1]
    # Of each pool's policy, of one pool's opener, and of what was to be done at a fork.
    assert caplog.text.count("RuntimeError: a surprise") == 4


def test_threads_that_notice_at_the_same_time_wait_for_the_one_that_begins_anew() -> None:
    begun: list[int] = []
    ended: list[int] = []
    sleep = get_original("time", "sleep")

    def begin() -> None:
        begun.append(1)
        registry.look_for_fork()  # as a finalizer in the middle of it
        sleep(0.02)
        assert not ended, "nobody goes on before it is done"

    def work() -> None:
        registry.look_for_fork()
        ended.append(1)

    registry.at_fork(begin)
    fork()
    for _ in range(3):
        start_thread(work, ())
    while len(ended) < 3:
        gevent.sleep(0.001)
    assert begun == [1]


CHILDREN = """
import ctypes, os
from geventpool.core import registry

fork = ctypes.PyDLL(None).fork
by_id = registry.ByProcessId()
assert not by_id
by_id.value = 1
ways = [registry.unforked, by_id]

def assert_in_child(check):
    child = fork()
    if child == 0:
        try:
            check()
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(0)
    os.waitpid(child, 0)

def in_child():
    assert [bool(way) for way in ways] == [False, False], "the child knows"
    for way in ways:
        way.value = 1
    assert [bool(way) for way in ways] == [True, True], "it has begun anew"
    assert_in_child(in_grandchild)
    assert [bool(way) for way in ways] == [True, True], "it is not its own child"

def in_grandchild():
    assert [bool(way) for way in ways] == [False, False], "so does the grandchild"

assert_in_child(in_child)
assert [bool(way) for way in ways] == [True, True], "the parent is the same"
print(type(ways[0]).__name__)
"""


def test_a_child_that_was_forked_in_c_knows_it_and_so_does_its_child() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) in (("c_ubyte", ""), ("ByProcessId", ""))


@pytest.mark.parametrize("refused", [set(), {registry._WIPE_ON_FORK, -1}, {-1}])
def test_where_the_kernel_does_not_wipe_the_process_id_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, refused: set[int]
) -> None:
    class Page(mmap.mmap):
        def madvise(self, advice: int, *_: int) -> None:
            if advice in refused:
                raise OSError("EINVAL")

    monkeypatch.setattr(registry.mmap, "mmap", Page)
    knows = type(registry._byte_that_no_child_inherits()) is not registry.ByProcessId
    assert knows == (refused == {-1}), "an emulator may say yes to everything and do nothing"


def in_a_session(engine: Engine) -> Any:
    session = Session(engine)
    session.execute(text("insert into t values (2)"))
    return session


def in_a_connection(engine: Engine) -> Any:
    connection = engine.connect()
    connection.execute(text("insert into t values (2)"))
    return connection


def in_a_raw_connection(engine: Engine) -> Any:
    connection = engine.raw_connection()
    connection.cursor().execute("insert into t values (2)")
    return connection


@pytest.mark.parametrize("inside", [in_a_session, in_a_connection, in_a_raw_connection])
def test_a_child_that_closes_what_it_has_inherited_says_nothing_at_sqlalchemys_door(
    inside: Callable[[Engine], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/file.db", poolclass=GeventPool)
    with engine.begin() as connection:
        connection.execute(text("create table t (x int)"))
    held = inside(engine)
    pool: Any = engine.pool
    (entry,) = pool.core.ledger.entries
    parents = entry.resource.dbapi_connection
    fork()
    held.close()
    assert registry.unforked
    assert parents.in_transaction, "the parent goes on with it"
    assert caplog.text == ""
    with engine.connect() as connection:
        assert connection.execute(text("select count(*) from t")).scalar_one() == 0
    parents.close()
    engine.dispose()
