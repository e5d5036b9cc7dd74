from __future__ import annotations

import gc
import logging
import os
import sqlite3
import time
from pathlib import Path

import gevent
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool, QueuePool

from geventpool import ConnectionPool
from geventpool.errors import ConfigError
from geventpool.flask import GeventPool as FlaskExtension
from geventpool.recorder import Recorder, record
from geventpool.recorder.journal import Journal
from geventpool.simulator import Trace, read_traces
from geventpool.sqlalchemy import GeventPool
from geventpool.testing import FakeDriver


def rows(directory: Path) -> list[tuple[float, float]]:
    return [row for trace in read_traces(str(directory)) for row in trace]


def traces(directory: Path) -> list[Trace]:
    return list(read_traces(str(directory)))


def test_every_checkout_of_a_raw_pool_is_a_row(tmp_path: Path) -> None:
    pool = ConnectionPool(FakeDriver().connect)
    recorder = record(pool, str(tmp_path))
    began = time.time()
    for hold in (0.01, 0.03):
        with pool.connection():
            gevent.sleep(hold)
    recorder.stop()
    pool.connection().close()
    (first, second) = rows(tmp_path)
    assert began - 1e-3 <= first[0] <= second[0] <= time.time()
    assert first[1] >= 0.01
    assert second[1] >= 0.03


def test_a_request_is_dated_when_it_was_asked_and_not_when_it_was_served(tmp_path: Path) -> None:
    pool = ConnectionPool(FakeDriver().connect, max_size=1)
    recorder = record(pool, str(tmp_path))

    def request() -> None:
        with pool.connection():
            gevent.sleep(0.05)

    gevent.joinall([gevent.spawn(request), gevent.spawn(request)])
    recorder.stop()
    first, second = rows(tmp_path)
    assert second[0] - first[0] < 0.04
    assert second[1] < 0.1


@pytest.mark.parametrize("poolclass", [GeventPool, QueuePool, NullPool])
def test_every_pool_of_sqlalchemy_is_recorded(tmp_path: Path, poolclass: type) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.sqlite3'}", poolclass=poolclass)
    recorder = record(engine, str(tmp_path / "traces"))
    for _ in range(3):
        with engine.connect() as connection:
            connection.execute(text("select 1"))
    engine.dispose()  # a new pool from here on
    with engine.connect():
        pass
    recorder.stop()
    with engine.connect():
        pass
    engine.dispose()
    assert len(rows(tmp_path / "traces")) == 4


def test_an_invalidated_connection_is_a_row_too(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.sqlite3'}", poolclass=GeventPool)
    recorder = record(engine, str(tmp_path / "traces"))
    with engine.connect() as connection:
        connection.invalidate()
    recorder.stop()
    engine.dispose()
    assert len(rows(tmp_path / "traces")) == 1


def test_rows_are_written_when_there_are_many_or_some_seconds_have_passed(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "a", 64 * 1024, 2)
    journal.add(1.0, 2.0)
    assert not list(tmp_path.iterdir())
    journal._written_at -= 10.0
    journal.add(2.0, 2.0)
    assert len(rows(tmp_path)) == 2
    for number in range(512):
        journal.add(float(number), 1.0)
    assert len(rows(tmp_path)) == 514
    journal.close()


def test_the_oldest_file_goes_so_that_the_files_stay_bounded(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "a", 64 * 1024, 3)
    for number in range(20_000):
        journal.add(1e9 + number, 1.0)
    journal.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    assert all(file.stat().st_size <= 64 * 1024 for file in files)
    kept = [t for t, _ in rows(tmp_path)]
    assert max(kept) == 1e9 + 19_999
    assert len(kept) == max(kept) - min(kept) + 1


def test_a_disk_that_fails_costs_rows_and_one_warning_but_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = ConnectionPool(FakeDriver().connect)
    recorder = record(pool, str(tmp_path))

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "geventpool.recorder"):
        patch.setattr(os, "write", full)
        for _ in range(3):
            pool.connection().close()
            recorder.flush()
        assert len(caplog.records) == 1
        assert "No space left" in caplog.text
    pool.connection().close()
    recorder.stop()
    assert len(rows(tmp_path)) == 1


def test_a_forked_child_writes_its_own_file_and_nothing_twice(tmp_path: Path) -> None:
    pool = ConnectionPool(FakeDriver().connect)
    recorder = record(pool, str(tmp_path))
    pool.connection().close()
    pid = os.fork()
    if pid == 0:
        try:
            pool.connection().close()
            pool.connection().close()
            recorder.flush()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    recorder.stop()
    assert sorted(len(trace) for trace in traces(tmp_path)) == [1, 2]
    assert any(f"-{pid}-" in file.name for file in tmp_path.iterdir())


def test_the_flask_extension_records_each_bind_by_one_setting(tmp_path: Path) -> None:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'main.sqlite3'}"
    app.config["SQLALCHEMY_BINDS"] = {"reports": f"sqlite:///{tmp_path / 'reports.sqlite3'}"}
    app.config["GEVENTPOOL_RECORD"] = str(tmp_path / "traces")
    db = SQLAlchemy(app)
    FlaskExtension(app, db)
    with app.app_context():
        for engine in (db.engine, db.engines["reports"], db.engine):
            with engine.connect() as connection:
                connection.execute(text("select 1"))
        for engine in db.engines.values():
            [listener] = engine.pool.core.listeners  # type: ignore[attr-defined]
            listener.recorder.stop()
            engine.dispose()
    told = {trace.name.partition("-")[0]: len(trace) for trace in traces(tmp_path / "traces")}
    assert told == {"default": 2, "reports": 1}


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a ConnectionPool, an Engine"):
        record(sqlite3, str(tmp_path))
    pool = ConnectionPool(FakeDriver().connect)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        record(pool, str(tmp_path / "file" / "below"))
    for bounds in ({"max_bytes": 10}, {"files": 0}, {"files": 2.5}):
        with pytest.raises(ConfigError, match="whole number"):
            record(pool, str(tmp_path), **bounds)  # type: ignore[arg-type]
    recorder = record(pool, str(tmp_path))
    with pytest.raises(ConfigError, match="stop that first"):
        record(pool, str(tmp_path))
    recorder.stop()
    record(pool, str(tmp_path)).stop()


def test_a_directory_that_has_gone_is_made_again_and_costs_no_error(tmp_path: Path) -> None:
    traces_at = tmp_path / "traces"
    recorder = Recorder(str(traces_at))
    traces_at.rmdir()
    pool = ConnectionPool(FakeDriver().connect)
    recorder.attach(pool)
    pool.connection().close()
    recorder.flush()
    assert len(rows(traces_at)) == 1
    recorder.stop()


def test_a_directory_that_cannot_be_made_again_costs_rows_but_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traces_at = tmp_path / "traces"
    recorder = Recorder(str(traces_at))
    traces_at.rmdir()
    traces_at.write_text("in the way")
    pool = ConnectionPool(FakeDriver().connect)
    recorder.attach(pool)
    with caplog.at_level(logging.WARNING, "geventpool.recorder"):
        pool.connection().close()
        recorder.stop()
    assert "rows are lost" in caplog.text
    pool.connection().close()


def test_a_return_in_the_midst_of_a_write_waits_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when the garbage collector returns a connection while rows are written.
    journal = Journal(str(tmp_path), "a", 64 * 1024, 2)
    write = os.write

    def collecting(fd: int, data: bytes) -> int:
        journal.add(2.0, 1.0)
        journal.flush()
        return write(fd, data)

    journal.add(1.0, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", collecting)
        journal.flush()
    journal.close()
    assert [t for t, _ in rows(tmp_path)] == [1.0, 2.0, 2.0]  # the header is a write, too


def test_the_last_rows_of_a_pool_that_has_gone_are_written_with_the_next(tmp_path: Path) -> None:
    recorder = Recorder(str(tmp_path))
    pools = [ConnectionPool(FakeDriver().connect, name=name) for name in ("one", "other")]
    for pool in pools:
        recorder.attach(pool)
    pools[0].connection().close()
    del pools[0], pool
    gevent.idle()
    gc.collect()
    assert not list(tmp_path.iterdir())  # a finalizer does no I/O
    pools[0].connection().close()
    assert [len(trace) for trace in traces(tmp_path)] == [1]
    recorder.stop()
    assert [len(trace) for trace in traces(tmp_path)] == [1, 1]


def test_after_a_recorder_of_one_pool_that_of_all_pools_counts_again(tmp_path: Path) -> None:
    pool = ConnectionPool(FakeDriver().connect)
    record(pool, str(tmp_path / "one")).stop()
    everyone = Recorder(str(tmp_path / "all"))
    everyone.attach_all()
    pool.connection().close()
    everyone.stop()
    pool.connection().close()
    assert len(rows(tmp_path / "all")) == 1


def test_what_is_there_already_is_neither_truncated_nor_followed(tmp_path: Path) -> None:
    """A process may get the number of an earlier one, and a directory may be prepared by somebody."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    directory = tmp_path / "traces"
    directory.mkdir()
    earlier = directory / f"pool-{os.getpid()}-000001.csv"
    earlier.write_text("t,hold\n1.0,2.0\n")
    (directory / f"pool-{os.getpid()}-000002.csv").symlink_to(elsewhere)
    pool = ConnectionPool(FakeDriver().connect)
    recorder = record(pool, str(directory))
    pool.connection().close()
    recorder.stop()
    assert earlier.read_text() == "t,hold\n1.0,2.0\n"
    assert elsewhere.read_text() == "kept"
    own = (directory / f"pool-{os.getpid()}-000003.csv").read_text()
    assert own.count("\n") == 2


def test_a_directory_with_odd_signs_adds_no_line_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = tmp_path / "a\n\x1b[2Jforged"
    journal = Journal(str(odd), "pool", 10**6, 2)
    odd.write_text("no directory")
    with caplog.at_level(logging.WARNING, "geventpool.recorder"):
        journal.add(1.0, 2.0)
        journal.flush()
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.isprintable()
