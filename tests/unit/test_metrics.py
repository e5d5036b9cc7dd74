"""A metric is declared once; what keeps, adds up, exports or documents figures follows that."""

from __future__ import annotations

import json
import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import geventpool
import geventpool.observe
from geventpool import ConnectionPool, PoolStats
from geventpool.core.stats import BY_LABEL, COUNTED, COUNTER, HISTOGRAM, METRICS, Counters
from geventpool.observe.metrics import ALL, families
from geventpool.observe.prometheus import exposition
from geventpool.observe.snapshot import add_up, snapshot
from geventpool.testing import FakeDriver
from tools import metrics_table

HOME = Path(__file__).resolve().parents[2]
DASHBOARD = HOME / "examples" / "grafana" / "geventpool.json"

ATTRIBUTES = """
name max_size min_idle size idle in_use opening closing resetting waiting level mean_in_use
checkouts_per_second checkouts hold_seconds waits wait_seconds wait_counts wait_reasons
timeouts timeout_reasons opened open_errors closed cancelled cancel_failures owners_ended
pings resets connect_time fleet_size fleet_granted fleet_demand fleet_overdrawn
"""

pytestmark = pytest.mark.usefixtures("no_pools_of_other_tests")


@pytest.fixture
def pool() -> Any:
    pool = ConnectionPool(FakeDriver().connect, name="desk", max_size=7)
    with pool.connection():
        pass
    yield pool
    pool.close()


def test_the_attributes_of_stats_are_those_that_programs_read(pool) -> None:
    names = ATTRIBUTES.split()
    assert [field.name for field in fields(PoolStats)] == names
    assert all(f"{name}: " in (PoolStats.__doc__ or "") for name in names)
    with pytest.raises(FrozenInstanceError):
        pool.stats().idle = 1


def test_what_is_counted_is_declared_and_what_is_declared_is_counted() -> None:
    source = "".join(path.read_text() for path in Path(geventpool.__file__).parent.rglob("*.py"))
    counted = set(re.findall(r"\bcounters\.(\w+)(?:\[\w+\])? \+= ", source))
    counted |= set(re.findall(r"\bself\.(\w+)(?:\[.+\])? \+= ", stats_source()))
    assert counted == {one.name for one in COUNTED if not one.sum_of}
    with pytest.raises(AttributeError):
        Counters().pingz = 1


def stats_source() -> str:
    return (Path(geventpool.__file__).parent / "core" / "stats.py").read_text()


def test_what_is_declared_of_each_pool_is_in_snapshots_and_in_their_sums(pool) -> None:
    [said] = snapshot()["pools"]
    assert list(said) == ["name", *(one.name for one in METRICS), "observed"]
    pool.core.counters.closed["idle"] += 2
    pool.core.counters.timeout_reasons["hub blocked"] += 1
    total = add_up([snapshot(), snapshot()]).pools["desk"]
    assert {one.name for one in METRICS if one.is_added_up} < total.keys()
    assert (total["checkouts"], total["max_size"], total["idle"]) == (2, 14, 2)
    assert (total["closed"], total["timeouts"]) == ({"idle": 4}, 2)


def test_a_pool_that_has_gone_leaves_all_that_was_counted(pool) -> None:
    counters = pool.core.counters
    for one in COUNTED:
        value = getattr(counters, one.name, None)
        if one.kind == COUNTER and not one.sum_of:
            setattr(counters, one.name, 3)
        elif one.kind == BY_LABEL:
            value["some cause"] = 4
        elif one.kind == HISTOGRAM:
            value[0] = 5
    read = counters.read()
    stats = pool.stats()
    assert read == {one.name: getattr(stats, one.name) for one in COUNTED}
    assert read["timeouts"] == 4
    total = add_up([{"pools": [], "gone": [{"name": "desk", **read}] * 2, "hub": None}])
    said = total.pools["desk"]
    assert (said["pings"], said["closed"], said["wait_counts"][0]) == (6, {"some cause": 8}, 10)


def test_prometheus_has_what_is_declared_with_its_help(pool) -> None:
    observer = geventpool.observe.attach(pool)
    watch = geventpool.observe.watch_hub()
    text = exposition().decode()
    watch.stop()
    observer.detach()
    said = {one.name: (one.type, one.documentation) for one in text_string_to_metric_families(text)}
    kinds = {BY_LABEL: COUNTER}
    assert said == {
        f"geventpool_{family[0].exposed}": (
            kinds.get(family[0].kind, family[0].kind),
            family[0].family or family[0].help,
        )
        for family in families(ALL)
    }


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    suffixes = {COUNTER: "_total", BY_LABEL: "_total", HISTOGRAM: "_bucket"}
    known = {f"geventpool_{one.exposed}{suffixes.get(one.kind, '')}" for one in ALL}
    expressions = [
        target["expr"]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(expressions) >= 10
    asked = {name for one in expressions for name in re.findall(r"\bgeventpool_\w+", one)}
    assert asked <= known


def test_the_table_in_the_docs_is_what_is_declared() -> None:
    page = metrics_table.PAGE.read_text()
    assert page == metrics_table.page_with(page), "run: python -m tools.metrics_table"
