"""Each benchmark runs, with counts so small that nothing is said of its figures."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import end_to_end, report
from benchmarks.__main__ import BENCHMARKS
from benchmarks.measure import TINY, count_calls, interleave, ratio
from benchmarks.result import Figure, Section
from benchmarks.run import in_greenlet

from .server_side import IS_WHOLE

pytestmark = pytest.mark.skipif(not IS_WHOLE, reason="they are run by `make stress`")

SMALLER: dict[str, dict[str, Any]] = {
    "connect_stall": {"CONNECTS": 1, "SERVERS": ("postgresql",)},
    "contended": {"GREENLETS": 20},
    "default_cap": {"CAPS": (2,), "SERVER_SECONDS": (0.0,), "GREENLETS": 4, "WARM_SECONDS": 0.05},
    "fleet": {"TIMES": 5},
    "footprint": {"CONNECTIONS": 10, "POOLS": 2},
    "idle_connections": {"MANY": 20},
    "kills": {"GREENLETS": 20, "WARM": 0.1},
    "round_trips": {"TIMES": 1, "WARM": 1},
    "transactions": {"GREENLETS": 2},
}


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "end_to_end"])
def test_a_benchmark_runs_and_has_something_to_say(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    if name == "sizing":
        monkeypatch.setattr("benchmarks.sizing.study.LOADS", ("cron", "near-idle"))
        monkeypatch.setattr("benchmarks.sizing.figures.LOADS", ("cron", "near-idle"))
        monkeypatch.setattr("benchmarks.sizing.study.BUSY_REQUESTS", 50_000)
    for constant, value in SMALLER.get(name, {}).items():
        monkeypatch.setattr(module, constant, value)
    sections = in_greenlet(module.measure, TINY, request.getfixturevalue)
    assert sections
    for section in sections:
        assert section.figures or section.tables
        assert all(figure.value > 0 for figure in section.figures)
        again = Section.from_json(json.loads(json.dumps(dataclasses.asdict(section))))
        assert again.markdown() == section.markdown()


def test_the_web_server_is_driven_in_both_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "MOST_WARM_UPS", 1)
    monkeypatch.setenv(end_to_end.OPTIONS, "")  # so that it is as before afterwards
    monkeypatch.setenv(end_to_end.OPENED, "")
    found = [variant for variant in end_to_end.variants() if variant.name == end_to_end.OURS]
    end_to_end.drive(TINY, f"sqlite:///{tmp_path / 'desk.sqlite3'}", 1, found)
    (variant,) = found
    assert variant.errors == 0
    assert variant.opened[0] >= 1
    assert variant.rates[0] > 0 < variant.open_p99[0]
    assert len(variant.cpu) == 1


def test_wrk_is_read_with_its_errors() -> None:
    said = """
  2 threads and 20 connections
  Latency Distribution
     50%   12.50ms
     75%   20.00ms
     90%  812.00us
     99%    1.25s
  100 requests in 1.00s, 20.00KB read
  Socket errors: connect 1, read 0, write 0, timeout 2
  Non-2xx or 3xx responses: 4
Requests/sec:    99.50
Transfer/sec:     19.90KB
"""
    told = {"requests": 100, "rate": 99.5, "p50": 0.0125, "p99": 1.25, "errors": 7}
    assert end_to_end.read_wrk(said) == told


def test_a_ratio_is_made_within_each_round() -> None:
    times = {"ours": [1.0, 20.0, 3.0], "theirs": [2.0, 40.0, 4.0]}
    figure = ratio(times, "ours", "theirs", 0.6, 0.5)
    assert (figure.low, figure.value, figure.high) == (0.5, 0.5, 0.625)
    assert figure.verdict == "stretch met"


def test_every_subject_has_its_turn_in_every_round() -> None:
    turns: list[str] = []

    def sample(name: str, count: int) -> float:
        turns.append(name)
        return float(count)

    times = interleave({name: functools.partial(sample, name) for name in "abc"}, 2, 1.0)
    assert turns[-6:] == ["a", "b", "c", "c", "b", "a"]
    assert times == {"a": [1.0, 1.0], "b": [1.0, 1.0], "c": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("value", "is_least", "verdict"),
    [
        (0.5, False, "met"),
        (0.9, False, "**missed: 150% of it**"),
        (0.9, True, "met"),
        (0.3, True, "**missed: 50% of it**"),
    ],
)
def test_a_target_is_met_or_missed(value: float, is_least: bool, verdict: str) -> None:
    assert Figure("", value, target=0.6, is_least=is_least).verdict == verdict


def test_frames_and_calls_are_counted_without_the_counting() -> None:
    def inner() -> int:
        return len([1, 2])

    calls, result = count_calls(lambda: inner())
    assert (calls.own, calls.frames, calls.c_calls, result) == (0, 2, 1, 2)


def test_results_are_kept_beside_new_ones(tmp_path: Path) -> None:
    first = Section("one", "how", [Figure("what", 0.5, 0.4, 0.6, 0.7, 0.3)])
    report.save(tmp_path, {"checkout": [first]}, [])
    kept = report.load(tmp_path)
    report.save(tmp_path, {**kept, "raw": [Section("two", "how")]}, ["frames"])
    text = (tmp_path / "RESULTS.md").read_text()
    assert list(report.load(tmp_path)) == ["checkout", "raw"]
    assert "| one: what | 0.5 | 0.4 to 0.6 | ≤ 0.7 | ≤ 0.3 | met |" in text
    assert "**Could not be measured:** frames." in text
    assert (tmp_path / "targets.png").exists()
