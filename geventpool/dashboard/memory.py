"""What was: one SQLite file with the figures of the last day, by the second, then coarser.

A row is one moment with all pools in it, written in one transaction: after a kill in the middle of a write
the file is as it was before. Its size is bounded; the finest rows make room first. One process writes,
others may read beside it.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from ..errors import ConfigError
from .records import Record, merge

STEPS: Final = {1: 20 * 60, 10: 4 * 3600, 60: 25 * 3600}
"""Seconds that a row is of, and for how many seconds such rows are kept."""

MOST_BYTES: Final = 200_000_000
_PAGE: Final = 4096
_MOST_EVENTS: Final = 10_000
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tick (
    step INTEGER, at INTEGER, pools BLOB, processes BLOB, PRIMARY KEY (step, at)
);
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, at REAL, what TEXT, host TEXT, pid INTEGER, pool TEXT, told TEXT, site TEXT,
    UNIQUE (at, what, host, pid, pool, site)
);
CREATE INDEX IF NOT EXISTS event_at ON event (at);
CREATE TABLE IF NOT EXISTS detail (at INTEGER PRIMARY KEY, said BLOB);
"""


@dataclass(frozen=True)
class Event:
    """Something that happened once.

    Attributes:
        at: seconds since 1970.
        what: in a few words, such as `"leak"`.
        host: where.
        pid: in which process.
        pool: of which pool; empty: of the process.
        told: the sentence, with the cure.
        site: whose line; empty: nobody's.
    """

    at: float
    what: str
    host: str
    pid: int
    pool: str
    told: str
    site: str = ""


Tick = Mapping[str, Record]
"""Records by the name of their series."""


class Memory:
    """The file, and what is asked of it.

    Args:
        path: the file; made if need be, for this user alone.
        most_bytes: its size at most.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._lock: int | None = None
        self._pid = os.getpid()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(path, flags, 0o600))
            self._db = self._open(most_bytes)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError("memory", str(path), f"cannot be used: {error}") from None

    def _open(self, most_bytes: int) -> sqlite3.Connection:
        # The row is whole or absent after a kill (write-ahead log); a power cut may take the last second.
        db = sqlite3.connect(self.path, timeout=0.2, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA busy_timeout = 200")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _SCHEMA_VERSION):
            db.close()
            raise sqlite3.DatabaseError("it is another version's: move it away")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA journal_size_limit = 4000000")
        db.execute(f"PRAGMA max_page_count = {max(most_bytes // _PAGE, 64)}")
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        return db

    def close(self) -> None:
        """Lets go of the file."""
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def is_writer(self) -> bool:
        """Is it this process that writes? The first that asks, until it ends."""
        if self._lock is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(self.path.with_name(self.path.name + ".lock"), flags, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                return False
            self._lock = lock
        return True

    def add(
        self,
        at: int,
        pools: Tick,
        processes: Tick,
        events: Iterable[Event] = (),
        detail: Any = None,
    ) -> None:
        """Writes one second, and what is to be made of those before it. May raise `sqlite3.Error`.

        Args:
            at: the second.
            pools: sums over all processes.
            processes: each process's own.
            events: what happened.
            detail: who holds what, and the queries; kept once a minute.
        """
        try:
            self._add(at, pools, processes, events, detail)
        except sqlite3.OperationalError as error:
            if "full" not in str(error):  # SQLITE_FULL, which Python 3.10 does not tell otherwise
                raise
            self._make_room()
            self._add(at, pools, processes, events, detail)

    def _add(
        self, at: int, pools: Tick, processes: Tick, events: Iterable[Event], detail: Any
    ) -> None:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            self._put(1, at, pools, processes)
            db.executemany(
                "INSERT OR IGNORE INTO event (at, what, host, pid, pool, told, site)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(e.at, e.what, e.host, e.pid, e.pool, e.told, e.site) for e in events],
            )
            if detail is not None:
                minute = (at // 60 * 60, _pack(detail))
                db.execute("INSERT OR IGNORE INTO detail VALUES (?, ?)", minute)
            self._roll_up(at)
            self._forget(at)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _put(self, step: int, at: int, pools: Tick, processes: Tick) -> None:
        row = (step, at, _pack(pools), _pack(processes))
        self._db.execute("INSERT OR REPLACE INTO tick VALUES (?, ?, ?, ?)", row)

    def _roll_up(self, now: int) -> None:
        """Makes coarse rows of fine ones whose time is over, also of those from before a restart."""
        for fine, coarse in pairwise(STEPS):
            begin, end = self._last(coarse) + coarse, now // coarse * coarse
            if begin >= end:
                continue
            fine_rows = self._rows(fine, begin, end)
            by_time: dict[int, list[tuple[Tick, Tick]]] = {}
            for at, pools, processes in fine_rows:
                by_time.setdefault(at // coarse * coarse, []).append((pools, processes))
            for at, rows in by_time.items():
                self._put(coarse, at, *map(_merge_ticks, zip(*rows, strict=True)))

    def _last(self, step: int) -> int:
        found = self._db.execute("SELECT max(at) FROM tick WHERE step = ?", (step,)).fetchone()[0]
        return int(found or 0)

    def _forget(self, now: int) -> None:
        if now % 10:
            return
        for step, kept in STEPS.items():
            self._db.execute("DELETE FROM tick WHERE step = ? AND at < ?", (step, now - kept))
        oldest = now - max(STEPS.values())
        self._db.execute("DELETE FROM detail WHERE at < ?", (oldest,))
        self._db.execute("DELETE FROM event WHERE at < ?", (oldest,))
        last = "SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET ?"
        self._db.execute(f"DELETE FROM event WHERE id <= ({last})", (_MOST_EVENTS,))

    def _make_room(self) -> None:
        """The file is as large as it may be: the older half of the finest rows goes."""
        for step in STEPS:
            chosen = "SELECT rowid FROM tick WHERE step = ? ORDER BY at"
            many = self._db.execute(f"SELECT count(*) FROM ({chosen})", (step,)).fetchone()[0]
            if many > 20:
                delete = f"DELETE FROM tick WHERE rowid IN ({chosen} LIMIT ?)"
                self._db.execute(delete, (step, many // 2))
                return
        self._db.execute("DELETE FROM detail")

    def _rows(self, step: int, begin: float, end: float) -> Iterator[tuple[int, Tick, Tick]]:
        rows = self._db.execute(
            "SELECT at, pools, processes FROM tick WHERE step = ? AND at >= ? AND at < ? ORDER BY at",
            (step, begin, end),
        ).fetchall()
        for at, pools, processes in rows:
            yield at, _unpack(pools), _unpack(processes)

    def read(
        self, begin: float, end: float, step: int, column: str = "pools"
    ) -> list[tuple[int, Tick]]:
        """The rows of a stretch of time, at one step, the oldest first.

        Args:
            begin: seconds since 1970.
            end: as `begin`; excluded.
            step: one of `STEPS`.
            column: `"pools"` or `"processes"`.
        """
        column = "processes" if column == "processes" else "pools"
        rows = self._db.execute(
            f"SELECT at, {column} FROM tick WHERE step = ? AND at >= ? AND at < ? ORDER BY at",
            (step, begin, end),
        )
        return [(at, _unpack(blob)) for at, blob in rows]

    def events(self, begin: float, end: float, limit: int = 200) -> list[Event]:
        """What happened, the last first."""
        rows = self._db.execute(
            "SELECT at, what, host, pid, pool, told, site FROM event"
            " WHERE at >= ? AND at < ? ORDER BY at DESC LIMIT ?",
            (begin, end, limit),
        )
        return [Event(*row) for row in rows]

    def detail(self, at: float) -> tuple[int, Any] | None:
        """Who held what and which queries there were, at the last full minute by then."""
        row = self._db.execute(
            "SELECT at, said FROM detail WHERE at <= ? ORDER BY at DESC LIMIT 1", (at,)
        ).fetchone()
        return None if row is None else (row[0], _unpack(row[1]))


def step_for(begin: float, end: float, now: float, most_rows: int = 900) -> int:
    """The finest step that is still kept of all that time, and that is not too many rows."""
    for step, kept in STEPS.items():
        if begin >= now - kept and (end - begin) / step <= most_rows:
            return step
    return max(STEPS)


def _merge_ticks(ticks: Sequence[Tick]) -> dict[str, Record]:
    series: dict[str, list[Record]] = {}
    for tick in ticks:
        for name, one in tick.items():
            series.setdefault(name, []).append(one)
    return {name: merge(found) for name, found in series.items()}


def _pack(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 1)


def _unpack(blob: bytes) -> Any:
    return json.loads(zlib.decompress(blob))
