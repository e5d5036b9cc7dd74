"""`geventpool advise`: its formulas against scipy and the simulator, and what it says."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from geventpool.advise import Expectation, sizes_for
from geventpool.advise.traced import from_trace
from geventpool.cli import main
from geventpool.simulator import Setting, Trace, simulate
from geventpool.sizing.erlang import chance_beyond, erlang_b, erlang_c, mean_wait, servers_for


def advise(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["advise", *arguments])
    assert done.exit_code == code, done.output
    return done.output


@given(st.integers(1, 400), st.floats(0.001, 300))
@settings(max_examples=200, deadline=None)
def test_erlangs_formulas_agree_with_scipys_poisson_distribution(servers: int, load: float) -> None:
    at, below = poisson.pmf(servers, load), poisson.cdf(servers - 1, load)
    assert erlang_b(servers, load) == pytest.approx(at / (below + at), rel=1e-8, abs=1e-290)
    if load < servers:
        waits = at / (at + (1 - load / servers) * below)
        assert erlang_c(servers, load) == pytest.approx(waits, rel=1e-8, abs=1e-290)


def test_erlang_c_agrees_with_the_sum_over_all_states() -> None:
    servers, load = 7, 5.5
    weights = [
        load**n / math.factorial(min(n, servers)) / servers ** max(0, n - servers)
        for n in range(150)
    ]
    total = sum(weights)
    assert erlang_c(servers, load) == pytest.approx(sum(weights[servers:]) / total, rel=1e-9)
    in_line = sum((n - servers) * weights[n] for n in range(servers, 150)) / total
    by_little = in_line / (load / 0.2)  # at a hold of 0.2 s
    assert mean_wait(servers, load, 0.2) == pytest.approx(by_little, rel=1e-9)


@given(st.floats(0.01, 200), st.floats(1e-3, 10), st.floats(1e-3, 10), st.floats(1e-6, 0.5))
@settings(max_examples=100, deadline=None)
def test_the_fewest_connections_are_the_fewest(
    load: float, hold: float, wait: float, share: float
) -> None:
    count = servers_for(load, hold, wait, share)
    assert chance_beyond(count, load, hold, wait) <= share
    assert count == 1 or chance_beyond(count - 1, load, hold, wait) > share


def test_nobody_is_served_in_time_where_the_load_is_above_what_there_is() -> None:
    assert erlang_c(5, 5.0) == chance_beyond(5, 6.0, 1.0, 100.0) == 1.0
    assert mean_wait(5, 5.0, 1.0) == math.inf
    assert erlang_b(0, 0.0) == 1.0
    assert erlang_b(3, 0.0) == erlang_c(3, 0.0) == 0.0


def random_load(rate: float, hold: float, many: int) -> Trace:
    draw = random.Random(7)
    at, rows = 0.0, []
    for _ in range(many):
        at += draw.expovariate(rate)
        rows.append((at, draw.expovariate(1 / hold)))
    return Trace("random", rows)


def test_the_real_pool_has_as_many_wait_as_erlang_c_says() -> None:
    trace = random_load(rate=40, hold=0.1, many=8_000)
    for servers in (5, 6, 8):
        found = simulate(trace, "idle:1e6", Setting(connect=0.0, max_size=servers))
        assert found.waited / len(trace) == pytest.approx(erlang_c(servers, 4.0), abs=0.06)


def test_the_guides_example_gives_fifty_and_erlang_c_a_few_more() -> None:
    it = Expectation(concurrent=100, query_time=0.05, acceptable_wait=0.1)
    sizes = sizes_for(it)
    assert sizes.guide == 50
    assert sizes.load == pytest.approx(50)
    assert sizes.erlang == 53
    assert chance_beyond(53, 50, 0.05, 0.1) <= 0.01 < chance_beyond(52, 50, 0.05, 0.1)


def test_many_small_pools_need_more_than_one_large_pool() -> None:
    sizes = sizes_for(Expectation(100, 0.05, 0.1, workers=4, hosts=3))
    assert sizes.total == 12 * sizes.each > sizes.erlang
    assert (sizes.room, sizes.fits) == ((20, 30), False)
    assert sizes_for(Expectation(100, 0.05, 0.1, max_connections=400)).fits


def test_what_it_says_names_where_the_simple_formula_misleads() -> None:
    usual = ("--concurrent", "100", "--query-time", "50ms", "--acceptable-wait", "100ms")
    said = advise(*usual, "--workers", "4", "--hosts", "3", "--database", "postgresql")
    assert "simple formula     50" in said
    assert "the line grows for ever" in said
    assert "does NOT fit" in said
    assert "assumed" in said
    said = advise(*usual, "--database", "mysql", "--max-connections", "500")
    assert "53 fits into 20 to 30 % of the server's max_connections=500" in said
    said = advise("--concurrent", "100", "--query-time", "50ms", "--rate", "100")
    assert "takes 43 more than the load needs" in said


def test_a_thousand_requests_a_minute_save_half_a_minute_of_connecting() -> None:
    said = advise("--concurrent", "20", "--query-time", "10ms", "--rate", str(1000 / 60))
    assert "1,000 connects and 30 s of waiting each minute, 1.0 s of CPU" in said


def test_json_and_a_picture(tmp_path: Path) -> None:
    usual = ("--concurrent", "100", "--query-time", "0.05", "--json")
    picture = tmp_path / "a.png"
    told = json.loads(advise(*usual, "--plot", str(picture)))
    assert told["sizes"]["guide"] == 50
    assert told["return"]["per_minute"] == pytest.approx(60_000)
    assert told["fits"] is False
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "ends in .png" in advise(*usual, "--plot", "a.xyz", code=1)
    assert "cannot be written" in advise(*usual, "--plot", str(tmp_path / "no/a.png"), code=1)


@pytest.mark.parametrize("text", ["0", "-1s", "soon", "1.2.3s", "5 parsecs"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    said = advise("--concurrent", "1", "--query-time", text, code=2)
    assert "such as 50ms" in said


def test_without_figures_it_says_which_to_give() -> None:
    assert "--concurrent and --query-time, or --trace" in advise(code=2)


@pytest.mark.parametrize(("rate", "hold"), [(40, 0.1), (2, 0.3)])
def test_the_cap_of_a_trace_is_the_smallest_that_will_do(rate: float, hold: float) -> None:
    trace = random_load(rate, hold, many=1_500)
    tried: list[int] = []
    found = from_trace(trace, 0.1, 0.02, tried.append)
    assert found.outcome.p99 <= 0.1 or found.cap == found.peak
    if found.cap > 1:
        fewer = simulate(trace, "adaptive", Setting(connect=0.02, max_size=found.cap - 1))
        assert fewer.p99 > 0.1
    assert len(tried) <= found.peak.bit_length() + 1
    assert found.load == pytest.approx(sum(trace.holds) / (trace.last_return - trace.start))


def test_a_trace_is_told_as_text_and_as_json(tmp_path: Path) -> None:
    for number in (1, 2):
        with (tmp_path / f"desk-{number}.csv").open("w") as file:
            random_load(10, 0.1, many=300).write(file)
    said = advise("--trace", str(tmp_path))
    assert "simulated" in said
    assert "of 2 pools" in said
    rows: list[dict[str, Any]] = json.loads(advise("--trace", str(tmp_path), "--json"))
    assert [row["trace"] for row in rows] == ["desk-1", "desk-2"]
    assert rows[0]["cap"] >= 1
