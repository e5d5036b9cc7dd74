"""What the page remembers: records, roll-up, the bounds of the file, and kills in the middle of writes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventpool import ConfigError, ConnectionPool
from geventpool.dashboard import records
from geventpool.dashboard.memory import STEPS, Event, Memory, step_for
from geventpool.dashboard.records import COUNTS, GAUGES, Record, count, gauge, wait_at
from geventpool.observe.snapshot import pool_snapshot
from geventpool.testing import FakeDriver

MINUTE = 1_700_000_040 // 60 * 60
KILLS = 50


def record(in_use: float = 1.0, checkouts: int = 2, **more: Any) -> Record:
    gauges = [in_use if name == "in_use" else 1.0 for name in GAUGES]
    counts = [checkouts if name == "checkouts" else 0 for name in COUNTS]
    return {"n": 1, "g": gauges, "p": in_use, "c": counts, "w": [], "e": {}, "r": {}, **more}


@pytest.fixture
def memory(tmp_path: Path) -> Any:
    memory = Memory(tmp_path / "memory.sqlite3")
    assert memory.is_writer
    yield memory
    memory.close()


def test_a_record_counts_what_has_happened_since_the_one_before() -> None:
    pool = ConnectionPool(FakeDriver().connect, name="desk", max_size=7)
    before = records.totals([pool_snapshot(pool.core)])
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(pool.connection())
        said = pool_snapshot(pool.core)
    now = records.totals([said])
    one = records.record([said], now, before, 1.0)
    assert count(one, "checkouts") == 3
    assert gauge(one, "in_use") == 3
    assert count(records.record([said], now, now, 1.0), "checkouts") == 0
    assert count(records.record([said], now, None, 1.0), "checkouts") == 0
    pool.close()


def test_counters_that_begin_anew_count_nothing() -> None:
    pool = ConnectionPool(FakeDriver().connect)
    said = pool_snapshot(pool.core)
    before = {**records.totals([said]), "c": [5] * len(COUNTS)}
    assert records.record([said], records.totals([said]), before, 1.0)["c"] == [0] * len(COUNTS)
    pool.close()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers(0, 1000))
def test_a_roll_up_keeps_means_peaks_and_counts(in_use: list[float], checkouts: int) -> None:
    merged = records.merge([record(one, checkouts) for one in in_use])
    assert merged["n"] == len(in_use)
    assert gauge(merged, "in_use") == pytest.approx(sum(in_use) / len(in_use), abs=1e-3)
    assert merged["p"] == pytest.approx(max(in_use), abs=1e-3)
    assert count(merged, "checkouts") == checkouts * len(in_use)


def test_records_of_processes_are_added_up_and_no_cap_stays_none() -> None:
    one, other = record(3, e={"saturated": 2}), record(4, e={"saturated": 1, "deadlock": 1})
    other["g"][GAUGES.index("max_size")] = None
    both = records.add([one, other])
    assert gauge(both, "in_use") == 7
    assert gauge(both, "max_size") is None
    assert both["e"] == {"saturated": 3, "deadlock": 1}
    assert both["n"] == 1


def test_names_from_outside_do_not_fill_the_memory() -> None:
    many = [record(e={f"{n}": 1}) for n in range(1000)]
    assert len(records.merge(many)["e"]) <= 20


def test_a_quantile_of_waits_is_the_edge_of_its_bucket() -> None:
    assert wait_at(record(w=[90, 0, 9, 1]), 0.5) == 0.001
    assert wait_at(record(w=[90, 0, 9, 1]), 0.99) == 0.005
    assert wait_at(record(w=[]), 0.5) == 0.0


def test_seconds_become_tens_and_minutes(memory: Memory) -> None:
    for second in range(121):
        memory.add(MINUTE + second, {"desk": record(second % 10)}, {"host/1/desk": record()})
    [first, *_] = memory.read(MINUTE, MINUTE + 120, 10)
    assert first[0] == MINUTE
    assert gauge(first[1]["desk"], "in_use") == 4.5
    assert len(memory.read(MINUTE, MINUTE + 120, 10)) == 12
    minutes = memory.read(MINUTE, MINUTE + 120, 60)
    assert [count(tick["desk"], "checkouts") for _, tick in minutes] == [120, 120]
    assert [
        tick["host/1/desk"]["n"] for _, tick in memory.read(MINUTE, MINUTE + 9, 10, "processes")
    ] == [10]


def test_what_was_left_by_a_restart_is_rolled_up_later(memory: Memory, tmp_path: Path) -> None:
    for second in range(7):
        memory.add(MINUTE + second, {"desk": record()}, {})
    memory.close()
    again = Memory(tmp_path / "memory.sqlite3")
    again.add(MINUTE + 95, {"desk": record()}, {})
    assert [at for at, _ in again.read(MINUTE, MINUTE + 95, 10)] == [MINUTE]
    assert [tick["desk"]["n"] for _, tick in again.read(MINUTE, MINUTE + 95, 60)] == [7]
    again.close()


def test_what_is_old_is_forgotten(memory: Memory) -> None:
    memory.add(
        MINUTE, {"desk": record()}, {}, [Event(MINUTE, "leak", "host", 1, "desk", "")], {"x": 1}
    )
    memory.add(MINUTE + STEPS[1] + 60, {"desk": record()}, {})
    assert not memory.read(MINUTE, MINUTE + 1, 1)
    assert memory.read(MINUTE, MINUTE + 1, 10)
    assert memory.events(MINUTE, MINUTE + 1)
    memory.add(MINUTE + 30 * 3600, {"desk": record()}, {})
    assert not memory.read(MINUTE, MINUTE + 3600, 60)
    assert not memory.events(MINUTE, MINUTE + 3600)
    assert memory.detail(MINUTE + 60) is None


def test_an_event_is_kept_once(memory: Memory) -> None:
    event = Event(MINUTE, "leak", "host", 1, "desk", "told", "site")
    for second in range(3):
        memory.add(MINUTE + second, {}, {}, [event])
    assert memory.events(MINUTE, MINUTE + 1) == [event]


def test_who_held_what_is_kept_once_a_minute(memory: Memory) -> None:
    memory.add(MINUTE + 1, {}, {}, (), {"holders": ["first"]})
    memory.add(MINUTE + 2, {}, {}, (), {"holders": ["second"]})
    assert memory.detail(MINUTE + 30) == (MINUTE, {"holders": ["first"]})
    assert memory.detail(MINUTE - 1) is None


def test_the_file_stays_within_its_bound(tmp_path: Path) -> None:
    bound = 300_000
    memory = Memory(tmp_path / "memory.sqlite3", bound)
    noise = {f"host/{n * 7919}/desk": record(n * 0.37, n) for n in range(50)}
    for second in range(150):
        one = {
            name: {**r, "p": (second * 31 + n) % 997} for n, (name, r) in enumerate(noise.items())
        }
        memory.add(MINUTE + second, one, one)
    assert memory.read(MINUTE + 149, MINUTE + 150, 1)
    assert memory.read(MINUTE, MINUTE + 150, 60)
    memory.close()
    assert (tmp_path / "memory.sqlite3").stat().st_size <= bound


def test_one_process_writes_and_another_reads(memory: Memory, tmp_path: Path) -> None:
    memory.add(MINUTE, {"desk": record()}, {})
    other = Memory(tmp_path / "memory.sqlite3")
    assert not other.is_writer
    assert [at for at, _ in other.read(MINUTE, MINUTE + 1, 1)] == [MINUTE]
    memory.close()
    assert other.is_writer
    other.close()


def test_the_file_is_for_this_user_alone(memory: Memory) -> None:
    assert memory.path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_no_memory_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("no database at all, and longer than its header would be" * 20)
    with pytest.raises(ConfigError, match="memory"):
        Memory(tmp_path / "memory")


def test_the_finest_step_that_is_kept_is_chosen() -> None:
    now = 1_000_000.0
    assert step_for(now - 900, now, now) == 1
    assert step_for(now - 3600, now, now) == 10
    assert step_for(now - 86_400, now, now) == 60
    assert step_for(now - 86_400, now - 86_100, now) == 60


_KILLER = """
import os, signal, sqlite3, sys
from pathlib import Path
from geventpool.dashboard.memory import Event, Memory

path, at = Path(sys.argv[1]), int(sys.argv[2])
one = {"n": 1, "g": [1.0] * 7, "p": 1, "c": [1] * 8, "w": [], "e": {}, "r": {}}
tick = {f"pool {n}": one for n in range(50)}

def write(at, out):
    memory = Memory(path)
    assert memory.is_writer
    while True:
        at += 1
        memory.add(at, tick, tick, [Event(at, "leak", "host", 1, "desk", "")], {"holders": []})
        os.write(out, b"%d\\n" % at)

for kill in range(int(sys.argv[3])):
    back, out = os.pipe()
    child = os.fork()
    if not child:
        try:
            write(at, out)
        finally:
            os._exit(1)
    os.close(out)
    with open(back) as lines:
        for _ in range(1 + kill % 7):  # in the middle of whatever comes after that many rows
            at = int(lines.readline())
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        at = max([at, *map(int, lines)])
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()
print(at)
"""


def test_the_file_is_whole_after_kills_in_the_middle_of_writes(tmp_path: Path) -> None:
    path = tmp_path / "memory.sqlite3"
    # In a process of its own, which forks: this one has a hub and threads.
    command = [sys.executable, "-c", _KILLER, str(path), str(MINUTE), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    at = int(done.stdout)
    memory = Memory(path)
    # All that was said to be written is there, and each row can be read.
    assert [one for one, _ in memory.read(at, at + 1, 1)] == [at]
    rows = memory.read(MINUTE, at + 1, 1)
    assert all(len(tick) == 50 for _, tick in rows)
    assert [one for one, _ in rows] == list(range(MINUTE + 1, at + 2))[: len(rows)]
    memory.close()
