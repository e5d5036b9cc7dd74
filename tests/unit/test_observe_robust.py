"""Whatever happens to who observes, nothing happens to who is observed."""

from __future__ import annotations

import gc
import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import greenlet
import pytest
from gevent.monkey import get_original
from sqlalchemy import create_engine, text

import geventpool.observe
from geventpool import ConfigError, ConnectionPool
from geventpool.core import stacks
from geventpool.observe import files, watcher
from geventpool.observe.findings import Findings
from geventpool.observe.holds import describe
from geventpool.observe.sites import site_of, site_of_capture
from geventpool.observe.snapshot import add_up, snapshot
from geventpool.observe.thresholds import Thresholds
from geventpool.observe.watcher import Watcher
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeClock, FakeDriver, settle

native_lock = get_original("_thread", "allocate_lock")
native_ident = get_original("_thread", "get_ident")

pytestmark = pytest.mark.usefixtures("no_pools_of_other_tests")


@pytest.fixture
def pool(driver: FakeDriver, clock: FakeClock) -> ConnectionPool:
    return ConnectionPool(driver.connect, clock=clock, max_size=2, name="desk")


def desk(said: Any = None) -> dict[str, Any]:
    """The sums of the pools of that name, as `/metrics` has them."""
    return add_up([said or snapshot()]).pools["desk"]


def test_a_greenlet_that_is_nothing_but_the_pools_own_method_is_served(pool) -> None:
    geventpool.observe.attach(pool)
    pool.core.upkeep.waiting.owners.records_stacks = True
    taken = gevent.spawn(pool.core.acquire, 1.0)
    pool.core.release(taken.get(), is_clean=True)
    lent = pool.connection()
    with lent as connection:
        cursor = gevent.spawn(connection.cursor).get()
        gevent.spawn(cursor.execute, "select 1").get()
    assert pool.stats().in_use == 0


def test_a_cursor_made_by_a_greenlet_that_does_nothing_else_is_watched() -> None:
    engine = create_engine("sqlite://", poolclass=GeventPool, max_size=1)
    observer = geventpool.observe.attach(engine)
    raw = engine.raw_connection()
    cursor = gevent.spawn(raw.cursor).get()
    cursor.execute("select 1")
    raw.close()
    assert observer.queries.report()[0].calls == 1
    engine.dispose()


@pytest.mark.parametrize("method", ["lent", "returned", "opened", "closed"])
def test_a_fault_of_the_observers_own_is_told_once_and_costs_nobody_a_connection(
    method, driver, clock, caplog, monkeypatch
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    observer = geventpool.observe.attach(pool)

    def fail(*_: object) -> None:
        raise RuntimeError("hunter2")

    for histogram in ("acquire", "hold", "open"):
        monkeypatch.setattr(observer.figures, histogram, type("Broken", (), {"add": fail})())
    caplog.set_level(logging.INFO, "geventpool.pool")
    monkeypatch.setattr(watcher, "number_of", fail)
    for _ in range(3):
        with pool.connection():
            pass
    pool.close()
    settle()
    assert pool.stats().size == 0
    pool.core.ledger.check()
    told = [record for record in caplog.records if "observing it has failed" in record.msg]
    assert len(told) == 1
    assert "RuntimeError" in told[0].getMessage()
    assert "hunter2" not in told[0].getMessage()


def test_no_method_of_a_listener_switches_greenlets(clock, caplog) -> None:
    caplog.set_level(logging.INFO, "geventpool.pool")
    pool = ConnectionPool(lambda: sqlite3.connect(":memory:"), clock=clock)
    geventpool.observe.attach(
        pool, idle_in_transaction_after=0.01, held_after=0.01, slow_query_after=0.001, kill=True
    )
    files_ = {
        sys.modules[one.__module__].__file__
        for one in (Watcher, Findings, Thresholds, geventpool.observe.Observer)
    }
    switched: list[str] = []

    def see(event: str, arguments: tuple[Any, Any]) -> None:
        frame = arguments[0].gr_frame if event in ("switch", "throw") else None
        while frame is not None:
            if frame.f_code.co_filename in files_:
                switched.append(frame.f_code.co_name)
            frame = frame.f_back

    def work(number: int) -> None:
        with pool.connection() as connection:
            connection.execute("create table if not exists t (a int)")
            connection.execute("insert into t values (1)")
            clock.sleep(0.1 * number)

    before = greenlet.settrace(see)
    try:
        for number in range(6):
            gevent.spawn(work, number)
        clock.advance(5.0)
        pool.close()
        settle()
    finally:
        greenlet.settrace(before)
    assert "idle in transaction" in caplog.text
    assert "It is closed now" in caplog.text
    assert switched == []


class SlowHandler(logging.Handler):
    """Writes to somewhere that has the greenlet wait, such as a socket."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.DEBUG:
            gevent.sleep(0.01)


def test_a_kill_while_a_checkout_is_logged_loses_nothing(driver, clock) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=1)
    geventpool.observe.attach(pool)
    log = logging.getLogger("geventpool.pool")
    handler = SlowHandler()
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        with pool.connection():
            pass
        killed = gevent.spawn(pool.connection)
        gevent.sleep(0)
        assert pool.stats().in_use == 1
        killed.kill()
        assert pool.stats().in_use == 0  # though its traceback still refers to the connection
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.7, 1.0, 1e-320])
def test_the_share_of_stacks_is_the_one_that_was_asked_for(share, pool) -> None:
    observer = geventpool.observe.attach(pool, stacks=share)
    kept = 0
    for _ in range(200):
        with pool.connection():
            kept += bool(observer.holders()[0].taken_at)
    assert kept == pytest.approx(200 * share, abs=1)


def test_nobody_is_blamed_for_a_leak_that_began_before_anybody_watched(
    driver, clock, caplog
) -> None:
    pool = ConnectionPool(driver.connect, clock=clock, max_size=2)
    kept: list[Any] = []
    gevent.spawn(lambda: kept.append(pool.connection())).join()
    observer = geventpool.observe.attach(pool)
    with pool.connection():  # of somebody innocent
        pass
    clock.advance(2.0)
    assert pool.stats().owners_ended == 1
    assert observer.warnings == {}


def test_the_call_site_of_a_query_is_that_of_its_last_call(pool) -> None:
    observer = geventpool.observe.attach(pool)
    for _ in range(3):
        for line in range(2):
            with pool.connection() as connection:
                cursor = connection.cursor()
                if line:
                    cursor.execute("select 1")
                else:
                    cursor.execute("select 1")
            [query] = observer.queries.report()
            assert query.calls
            here = sys._getframe().f_code.co_firstlineno
            assert int(query.to_json()["site"].split(":")[1].split()[0]) - here == (9 - 2 * line)


def test_a_snapshot_does_not_keep_the_hub_while_new_texts_pour_in(pool, monkeypatch) -> None:
    observer = geventpool.observe.attach(pool)
    read: list[str] = []

    def slowly(text: str) -> str:
        time.sleep(0.001)
        read.append(text)
        return text

    monkeypatch.setattr(observer, "know", lambda _: None)
    monkeypatch.setattr(observer.queries.fingerprinter, "read", slowly)
    with pool.connection() as connection:
        cursor = connection.cursor()
        for number in range(500):
            cursor.execute(f"select {number}")
    read.clear()
    snapshot()
    # 2 ms for reading; and the last query of whoever holds a connection is shown.
    assert len(read) <= 4


def test_an_engine_that_is_watched_can_be_collected() -> None:
    engine = create_engine("sqlite://", poolclass=GeventPool, max_size=1)
    geventpool.observe.attach(engine)
    with engine.connect() as connection:
        connection.execute(text("select 1"))
    core = weakref.ref(engine.pool.core)
    engine.dispose()
    del connection, engine
    for _ in range(3):
        settle()
        gc.collect()
    assert core() is None


def test_sums_neither_double_nor_fall_when_an_engine_is_disposed_of() -> None:
    engine = create_engine("sqlite://", poolclass=GeventPool, max_size=2, pool_logging_name="desk")
    observer = geventpool.observe.attach(engine)
    snapshot()
    for _ in range(3):
        engine.connect().close()
    held = engine.connect()
    engine.dispose()
    engine.connect().close()
    assert len(observer.holders()) == 1  # of the old pool
    said = desk()
    assert (said["checkouts"], sum(said["histograms"]["acquire_seconds"]["counts"])) == (5, 5)
    held.close()
    del held
    gc.collect()
    said = desk()
    assert (said["checkouts"], sum(said["histograms"]["acquire_seconds"]["counts"])) == (5, 5)
    assert said["opened"] >= 2
    observer.detach()
    engine.dispose()


def test_detaching_ends_the_watch_of_a_pool_that_was_disposed_of_too() -> None:
    engine = create_engine("sqlite://", poolclass=GeventPool, max_size=2)
    observer = geventpool.observe.attach(engine)
    old = engine.pool.core
    held = engine.connect()
    engine.dispose()
    engine.connect().close()
    observer.detach()
    assert old.listener is None
    assert engine.pool.core.listener is None
    held.close()
    engine.dispose()


def test_a_forked_child_tells_nothing_of_its_parent(tmp_path: Path) -> None:
    code = """
import gevent, os, logging, sys
from geventpool import ConnectionPool
from geventpool.testing import FakeDriver
import geventpool.observe as observe
from geventpool.observe.files import read_total

logging.basicConfig(stream=sys.stdout)
pool = ConnectionPool(FakeDriver().connect, name="desk")
observer = observe.attach(pool, held_after=0.2)
publisher = observe.publish(sys.argv[1], interval=0.05)
watch = observe.watch_hub(0.05)
held = pool.connection()
held.cursor().execute("select 1")
gevent.sleep(0.3)
assert observer.warnings == {"held for too long": 1}, observer.warnings
child = os.fork()
if not child:
    assert observer.warnings == {} and watch.blocks == 0
    gevent.sleep(0.5)
    assert observer.warnings == {}, observer.warnings
    own = pool.connection()
    gevent.sleep(0.5)
    assert observer.warnings == {"held for too long": 1}, observer.warnings
    total = read_total(publisher.directory).pools["desk"]
    assert total["checkouts"] == 2, total
    assert sum(total["histograms"]["acquire_seconds"]["counts"]) == 2, total
    assert sum(total["histograms"]["query_seconds"]["counts"]) == 1, total
    print("child is well", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    command = [sys.executable, "-c", code, str(tmp_path / "snapshots")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "child is well" in done.stdout


@pytest.fixture
def publisher(tmp_path: Path, pool: ConnectionPool) -> Iterator[Any]:
    publisher = geventpool.observe.publish(tmp_path / "snapshots", interval=60)
    yield publisher
    publisher.stop()


def plant(directory: Path, pid: int, /, **more: Any) -> Path:
    """The file of another process, which has ended."""
    file = directory / f"geventpool-{pid}.json"
    file.write_text(json.dumps({**snapshot(), "pid": pid, "began": "1", **more}))
    return file


def test_what_another_user_may_have_put_there_is_not_read(publisher, tmp_path) -> None:
    directory = publisher.directory
    genuine = plant(tmp_path, 999_999_999)
    (directory / "geventpool-999999999.json").symlink_to(genuine)
    os.mkfifo(directory / "geventpool-999999998.json")
    (directory / "geventpool-ended.json").symlink_to("/dev/zero")
    with gevent.Timeout(60):
        assert files.read_total(directory).processes == 1
    if os.getuid() == 0:
        os.chown(plant(directory, 999_999_997), 65534, 65534)
        assert files.read_total(directory).pools["desk"]["checkouts"] == 0
    directory.chmod(0o777)
    for read in (files.read_total, files.read_snapshots):
        with pytest.raises(ConfigError, match="chmod 700"):
            read(directory)
    directory.chmod(0o700)


@pytest.mark.parametrize(
    "said",
    [
        {"pid": "../../etc"},
        {"pid": None},
        {"pools": 3},
        {"pools": [{"name": "desk"}]},
        {"pools": [None]},
        {"hub": {"longest": 3}},
        {"gone": [{}]},
        {"version": 0},
    ],
)
def test_a_snapshot_that_nobody_understands_breaks_no_metrics(said, publisher) -> None:
    plant(publisher.directory, 999_999_999, **said)
    (publisher.directory / "geventpool-ended.json").write_text(json.dumps({"version": 1, **said}))
    assert files.read_total(publisher.directory).processes == 1
    assert len(geventpool.observe.read_snapshots(publisher.directory)) == 1


def test_what_a_killed_process_has_half_written_is_removed(publisher) -> None:
    dead = publisher.directory / "geventpool-999999999.part"
    alive = publisher.directory / f"geventpool-{os.getppid()}.part"
    for part in (dead, alive):
        part.write_text('{"version": 1, "po')
    files.read_total(publisher.directory)
    assert not dead.exists()
    assert alive.exists()


def test_the_dead_are_counted_once_also_by_two_who_read_at_once(publisher, monkeypatch) -> None:
    import fcntl

    monkeypatch.setattr(files, "_TRIES", 3)
    [pool] = snapshot()["pools"]
    file = plant(publisher.directory, 999_999_999, pools=[{**pool, "checkouts": 100}])
    with open(publisher.directory / "geventpool-lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # by one that was stopped
        for _ in range(2):
            assert files.read_total(publisher.directory).pools["desk"]["checkouts"] == 100
        assert file.exists()
    for _ in range(2):
        assert files.read_total(publisher.directory).pools["desk"]["checkouts"] == 100
    assert not file.exists()


def test_a_full_disk_is_told_once_and_when_there_is_room_it_goes_on(
    publisher, caplog, monkeypatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_replace", full)
        for _ in range(3):
            ring(publisher)
    assert [record.getMessage() for record in caplog.records] == [
        f"snapshots cannot be written to {str(publisher.directory)!r} for now: No space left on device"
    ]
    publisher.path.unlink()
    ring(publisher)
    assert publisher.path.exists()


def ring(publisher: Any) -> None:
    """A turn of its timer, with something new to tell, to the end of its write."""
    publisher._in_file = ""
    publisher._ring()
    while publisher.is_writing:
        gevent.sleep(0.001)


class SlowDisk:
    """Holds each write, in whichever native thread, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._is_free = native_lock()
        self._is_free.acquire()
        self._replace = files._replace
        self.written: list[tuple[int, str]] = []
        monkeypatch.setattr(files, "_replace", self)

    def __call__(self, path: Path, said: str) -> None:
        with self._is_free:
            self.written.append((native_ident(), said))
            self._replace(path, said)

    def let_go(self) -> None:
        """From now on it is quick."""
        self._is_free.release()


def test_a_slow_disk_blocks_no_hub_and_the_writes_do_not_pile_up(publisher, monkeypatch) -> None:
    disk = SlowDisk(monkeypatch)
    for _ in range(3):
        publisher._in_file = ""
        publisher._ring()
        gevent.sleep(0.001)  # the hub turns
    assert publisher.is_writing
    assert disk.written == []
    disk.let_go()
    while publisher.is_writing:
        gevent.sleep(0.001)
    [(thread, _)] = disk.written
    assert thread != native_ident()


def test_the_last_snapshot_is_never_replaced_by_an_older_one(publisher, pool, monkeypatch) -> None:
    """One is being written, or waits for its turn, when the process stops publishing."""
    disk = SlowDisk(monkeypatch)
    publisher._in_file = ""
    publisher._ring()
    gevent.sleep(0.001)
    with pool.connection():
        pass
    gevent.get_hub().threadpool.spawn(disk.let_go)
    publisher.stop()
    while publisher.is_writing:
        gevent.sleep(0.001)
    publisher._put(publisher.path, 0.0, "an older one, in a thread that had to wait", 1)
    [said] = geventpool.observe.read_snapshots(publisher.directory)
    assert said["pools"][0]["checkouts"] == 1


def test_a_disk_that_hangs_does_not_hold_up_the_end_of_the_process(publisher, monkeypatch) -> None:
    monkeypatch.setattr(files, "_LAST_WRITE", 0.01)
    disk = SlowDisk(monkeypatch)
    publisher._in_file = ""
    publisher._ring()
    while not publisher._lock.locked():
        gevent.sleep(0.001)
    publisher.stop()
    assert disk.written == []
    disk.let_go()
    while publisher.is_writing:
        gevent.sleep(0.001)


def test_a_snapshot_that_could_not_be_written_is_written_by_the_next_turn(
    publisher, pool, monkeypatch
) -> None:
    """Also if nothing has happened since: the file is not just touched."""

    def full(path: Path, said: str) -> None:
        raise OSError(28, "No space left on device")

    with pool.connection():
        pass
    with monkeypatch.context() as patch:
        patch.setattr(files, "_replace", full)
        publisher._ring()
        while publisher.is_writing:
            gevent.sleep(0.001)
    publisher._ring()
    while publisher.is_writing:
        gevent.sleep(0.001)
    [said] = geventpool.observe.read_snapshots(publisher.directory)
    assert said["pools"][0]["checkouts"] == 1


def test_the_last_snapshot_does_not_rely_on_a_write_that_has_not_begun(
    publisher, pool, monkeypatch
) -> None:
    """The process may end before the thread has its first turn."""
    begun: list[object] = []
    monkeypatch.setattr(files, "_start_thread", lambda *args: begun.append(args))
    with pool.connection():
        pass
    publisher._ring()
    settle()
    assert begun
    publisher.stop()
    [said] = geventpool.observe.read_snapshots(publisher.directory)
    assert said["pools"][0]["checkouts"] == 1


IN_THE_MIDST_OF_A_WRITE = """
import os, sys, gevent
from gevent.monkey import get_original
from geventpool.observe import files, publish
lock = get_original("_thread", "allocate_lock")()
publisher = publish(sys.argv[1], interval=60)
replace = files._replace
def slow(*args):
    with lock:
        replace(*args)
files._replace = slow
lock.acquire()
publisher._in_file = ""
publisher._ring()
while not publisher._lock.locked():
    gevent.sleep(0.001)
"""


def run_in_the_midst_of_a_write(code: str, tmp_path: Path) -> None:
    program = [sys.executable, "-c", IN_THE_MIDST_OF_A_WRITE + code, str(tmp_path / "snapshots")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def test_a_disk_that_hangs_keeps_no_loop_alive(tmp_path: Path) -> None:
    code = """
files._LAST_WRITE = 0.01
assert gevent.get_hub().join(timeout=20), "the loop has something to wait for"
"""
    run_in_the_midst_of_a_write(code, tmp_path)


def test_a_child_that_was_forked_in_the_midst_of_a_write_publishes(tmp_path: Path) -> None:
    code = """
child = os.fork()
if not child:
    files._replace = replace
    publisher._ring()
    while publisher.is_writing:
        gevent.sleep(0.001)
    assert publisher.path.exists()
    publisher.write()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
lock.release()
"""
    run_in_the_midst_of_a_write(code, tmp_path)


def test_a_snapshot_describes_no_more_holders_than_it_tells(driver, clock, monkeypatch) -> None:
    """A description costs a tenth of a millisecond, for which the hub stands still."""
    pool = ConnectionPool(driver.connect, clock=clock, max_size=50, name="desk")
    geventpool.observe.attach(pool, held_after=None, idle_in_transaction_after=None)
    lent = []
    for _ in range(50):
        lent.append(pool.connection())
        clock.advance(1)
    described: list[object] = []

    def count(*args: Any) -> Any:
        described.append(args)
        return describe(*args)

    monkeypatch.setattr(watcher, "describe", count)
    told = watcher.watcher_of(pool.core).to_json()["holders"]
    assert [round(one["held_for"]) for one in told] == list(range(50, 30, -1))
    assert len(described) == 20
    for connection in lent:
        connection.close()


@pytest.mark.parametrize(
    "value",
    [
        "mysql+pymysql://shop:hunter2@db/shop",
        "postgresql://shop:hunt@hunter2@db/shop",
        "host=db user=shop password=hunter2 dbname=shop",
        "host=db password='hunter2 hunter2'",
        {"host": "db", "password": "hunter2"},
        {"auth_token": "hunter2", "port": 3},
    ],
)
def test_a_password_in_what_is_given_by_mistake_is_not_in_the_error(value) -> None:
    for make in (geventpool.observe.attach, ConnectionPool, geventpool.sqlalchemy.wrap):
        with pytest.raises(ConfigError) as caught:
            make(value)
        assert "hunter2" not in str(caught.value) + repr(caught.value)
        assert "***" in str(caught.value)


@pytest.fixture
def flask_app(tmp_path: Path) -> Iterator[Any]:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'default.db'}"
    app.config["SQLALCHEMY_BINDS"] = {"reports": f"sqlite:///{tmp_path / 'reports.db'}"}
    db = SQLAlchemy(app)
    yield app, db
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


def test_one_setting_of_the_flask_extension_observes_all_binds(flask_app, tmp_path) -> None:
    import geventpool.flask

    app, db = flask_app
    app.config["GEVENTPOOL_OBSERVE"] = {"held_after": 5, "stacks": 0.5}
    app.config["GEVENTPOOL_SNAPSHOTS"] = str(tmp_path / "snapshots")
    geventpool.flask.GeventPool(app, db)
    with app.app_context():
        for bind in (None, "reports"):
            with db.engines[bind].connect() as connection:
                connection.execute(text("select 1"))
        listeners = [engine.pool.core.listeners[0] for engine in db.engines.values()]
    assert [one.observer.settings.held_after for one in listeners] == [5, 5]
    publisher = files.publisher()
    assert publisher is not None
    publisher.write()
    [said] = geventpool.observe.read_snapshots(tmp_path / "snapshots")
    assert [pool["observed"]["queries"]["fingerprints"] for pool in said["pools"]] == [1, 1]
    assert said["hub"] is not None
    publisher.stop()
    geventpool.observe.watch_hub().stop()


def test_unless_it_is_asked_for_flask_observes_nothing(flask_app, tmp_path, monkeypatch) -> None:
    import geventpool.flask

    monkeypatch.setenv("GEVENTPOOL_SNAPSHOTS", str(tmp_path / "snapshots"))
    app, db = flask_app
    geventpool.flask.GeventPool(app, db, observe=False)
    with app.app_context():
        assert db.engine.pool.core.listener is None
    assert files.publisher() is None


@pytest.mark.parametrize(("said", "named"), [("yes", "observe"), ({"held": 5}, "held")])
def test_a_wrong_observe_is_refused_when_the_application_is_set_up(said, named, flask_app) -> None:
    import geventpool.flask

    app, db = flask_app
    with pytest.raises(ConfigError) as caught:
        geventpool.flask.GeventPool(app, db, observe=said)
    assert caught.value.argument == named


def test_code_that_a_library_has_made_is_not_the_programs_own() -> None:
    namespace: dict[str, Any] = {}
    for file in (
        "<Generated _go() wrapper for sqlalchemy.orm.session.SessionTransaction._connection_for_bind>",
        "<attrs generated init desk.models.Order>",
        "<decorator-gen-12>",
        "/usr/lib/python3/dist-packages/sqlalchemy/orm/session.py",
    ):
        code = compile("def call(f):\n    return f()", file, "exec")
        exec(code, namespace)
        [line] = namespace["call"](lambda: site_of(sys._getframe(0)))[:1]
        assert line[0] == __file__
        site = namespace["call"](lambda: site_of(sys._getframe(0).f_back))
        assert site[0][0] == __file__, site
        stack = namespace["call"](lambda: stacks.capture(0))
        assert {line[0] for line in site_of_capture(stack[1:])} == {__file__}
