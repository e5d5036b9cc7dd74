"""What becomes of a statement that is to be prepared."""

from __future__ import annotations

from typing import Any

import pytest

from geventpool import ConfigError
from geventpool.plans import Target, Targets, is_lost


def test_placeholders_become_the_servers_own() -> None:
    target = Target("select * from t where a = %s and b like '%%x{}' and c = %s")
    assert target.postgresql() == "select * from t where a = $1 and b like '%x{}' and c = $2"
    assert target.mysql() == "select * from t where a = ? and b like '%x{}' and c = ?"
    assert target.values([1, 2], True) == [1, 2]


def test_a_name_that_is_used_twice_is_one_parameter_of_postgresqls() -> None:
    target = Target("select %(a)s, %(b)s, %(a)s")
    assert target.postgresql() == "select $1, $2, $1"
    assert target.values({"a": 1, "b": 2}, True) == [1, 2]
    assert target.mysql() == "select ?, ?, ?"
    assert target.values({"a": 1, "b": 2}, False) == [1, 2, 1]


def test_equal_statements_have_equal_names_and_others_have_others() -> None:
    assert Target("select %s").name == Target("select %s").name
    assert Target("select %s").name != Target("select  %s").name


def test_the_numbers_of_a_page_are_parameters() -> None:
    targets = Targets()
    target = targets.add("SELECT a FROM t WHERE b = %s LIMIT 10 OFFSET 20")
    assert targets.add("SELECT a FROM t WHERE b = %s LIMIT 5 OFFSET 5") is target
    assert targets.find("SELECT a FROM t WHERE b = %s LIMIT 7 OFFSET 8", ("x",)) == (
        target,
        ["x", 7, 8],
    )
    assert targets.find("SELECT a FROM t WHERE b = %s LIMIT 7", ("x",)) is None
    assert targets.find(b"SELECT 1", ()) is None
    assert len(targets) == 1
    assert list(targets) == [target]


def test_percent_signs_mean_themselves_where_there_are_no_parameters() -> None:
    targets = Targets()
    target = targets.add("select 'a%%b'")
    assert targets.find("select 'a%%b'", None) is None
    assert targets.find("select 'a%%b'", ()) == (target, ())
    targets.add("select 'a%%b' limit 5")
    assert targets.find("select 'a%%b' limit 6", None) is None
    one = targets.add("select 1 limit 5")
    assert targets.find("select 1 limit 7", None) == (one, [7])


def test_parameters_that_are_too_few_or_too_many_are_the_drivers_to_tell() -> None:
    targets = Targets()
    target = targets.add("select %s, %s")
    assert targets.find("select %s, %s", [1, 2]) == (target, [1, 2])
    assert targets.find("select %s, %s", [1]) is None
    assert targets.find("select %s, %s", [1, 2, 3]) is None
    assert targets.find("select %s, %s", None) is None


@pytest.mark.parametrize("text", ["drop table t", "", 5, None, "select %d", "begin"])
def test_what_cannot_be_prepared_is_refused(text: Any) -> None:
    with pytest.raises(ConfigError):
        Targets().add(text)


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geventpool.plans.MOST_TARGETS", 2)
    targets = Targets()
    targets.add("select 1")
    targets.add("select 2")
    targets.add("select 1")
    with pytest.raises(ConfigError, match="already"):
        targets.add("select 3")


class Error(Exception):
    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


def test_only_a_lost_plan_is_taken_for_one() -> None:
    assert is_lost(Error("no such", "26000"))
    assert is_lost(Error("cached plan must not change result type", "0A000"))
    assert not is_lost(Error("cannot do that", "0A000"))
    assert not is_lost(Error("syntax", "42601"))
    assert is_lost(Exception(1243, "Unknown prepared statement handler"))
    assert not is_lost(Exception(1064, "syntax"))
    assert not is_lost(Exception())
