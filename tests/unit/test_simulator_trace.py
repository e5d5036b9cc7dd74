from __future__ import annotations

import gzip
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventpool.errors import ConfigError
from geventpool.simulator import FAMILIES, Trace, make_trace, read_traces

requests = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e4)), min_size=1, max_size=30)


def read(path: Path) -> Trace:
    (trace,) = read_traces(str(path))
    return trace


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    made = make_trace("bursts", 3)
    with (tmp_path / "made.csv").open("w") as file:
        made.write(file)
    again = read(tmp_path / "made.csv")
    assert again.name == "made"
    assert len(again) == len(made)
    assert list(again.times) == pytest.approx(list(made.times), abs=1e-6)
    assert list(again.holds) == pytest.approx(list(made.holds), abs=1e-6)


def test_rows_in_the_order_of_returns_are_sorted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,hold\n2,1\n0,9\n1,3\n")
    assert list(read(tmp_path / "a.csv")) == [(0, 9), (1, 3), (2, 1)]


def test_columns_are_found_by_their_names_among_others(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("who,hold,T\nx,1,5\n\ny,2,6\n")
    assert list(read(tmp_path / "a.csv")) == [(5, 1), (6, 2)]


def test_without_a_header_the_first_two_columns_count(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("5,1,x\r\n6,2,y\r\n")
    assert list(read(tmp_path / "a.csv")) == [(5, 1), (6, 2)]


def test_a_directory_is_each_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("1,1\n")
    (tmp_path / "notes.txt").write_text("no trace")
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("t,hold\n0,1\n0,2\n")
    (tmp_path / "c.csv").mkdir()
    assert [(trace.name, len(trace)) for trace in read_traces(str(tmp_path))] == [
        ("a", 2),
        ("b", 1),
    ]


def test_standard_input_may_be_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(b"0,1\n1,1\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data))))
    (trace,) = read_traces("-")
    assert len(trace) == 2


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "has no rows"),
        ("t,hold\n", "has no rows"),
        ("t,hold\n1,2\n1,x\n", "line 3"),
        ("t,hold\n1,-1\n", "line 2"),
        ("1,2\n1\n", "line 2"),
        ("1,nan\n", "line 1"),
        ("inf,1\n", "line 1"),
        ("1,1e300\n", "line 1"),
        ("a,b\n1,2\n", "line 1"),
        ("1,2\n\x00\x01\xff", "line"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "bad.csv").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=where) as caught:
        read(tmp_path / "bad.csv")
    assert caught.value.argument == "trace"
    assert "bad.csv" in str(caught.value)


def test_a_truncated_gzip_is_named_with_the_line_where_it_breaks(tmp_path: Path) -> None:
    text = "".join(f"{second},{second % 7}.{second}\n" for second in range(20_000))
    whole = gzip.compress(text.encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"cut\.csv\.gz, line \d+': the gzip stream breaks off"):
        read(tmp_path / "cut.csv.gz")


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match=r"no \.csv or \.csv\.gz"):
        read(tmp_path)


@given(requests)
def test_events_rise_and_fall_as_often_and_returns_come_first(
    rows: list[tuple[float, float]],
) -> None:
    events = list(Trace("t", rows).events())
    assert events == sorted(events, key=lambda event: event[0])
    assert sum(1 if is_rise else -1 for _, is_rise in events) == 0
    in_use = 0
    for before, (now, is_rise) in zip([None, *events], events, strict=False):
        in_use += 1 if is_rise else -1
        assert in_use >= 0
        assert before is None or before[0] < now or not (before[1] and not is_rise)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_trace_again_and_another_another(family: str) -> None:
    one = make_trace(family, 1)
    assert list(one) == list(make_trace(family, 1))
    assert list(one) != list(make_trace(family, 2))
    assert len(one) > 50
    assert min(one.times) >= 0.0
    assert FAMILIES[family].__doc__


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="give one of steady"):
        make_trace("steddy")


def test_a_pipe_in_a_directory_keeps_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("t,hold\n1,2\n")
    (tmp_path / "c.csv").symlink_to(tmp_path / "b.csv")
    with gevent.Timeout(60):
        assert [trace.name for trace in read_traces(str(tmp_path))] == ["b", "c"]
