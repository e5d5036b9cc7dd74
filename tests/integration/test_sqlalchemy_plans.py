"""`prepare(engine, statement)` on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    insert,
    select,
    text,
)
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from geventpool import ConfigError
from geventpool.plans import PlanLost
from geventpool.sqlalchemy import GeventPool, prepare

SERVERS = {"psycopg": "postgresql", "psycopg2": "postgresql", "pymysql": "mariadb"}
SERVERS["mysqldb"] = "mariadb"
metadata = MetaData()
words = Table(
    "planned_words", metadata, Column("id", Integer, primary_key=True), Column("word", String(40))
)


@pytest.fixture(params=SERVERS)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "mysqldb":
        pytest.importorskip("MySQLdb")
    server: Any = request.getfixturevalue(SERVERS[request.param])
    engine = create_engine(server.url(request.param), poolclass=GeventPool)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"id": number, "word": f"100% {number}"} for number in range(1, 21)]
        connection.execute(insert(words), rows)
    yield engine
    metadata.drop_all(engine)
    engine.dispose()


def prepared(connection: Any) -> int:
    if connection.dialect.name == "mysql":
        return int(
            connection.exec_driver_sql("show session status like 'Com_prepare_sql'").one()[1]
        )
    ours = "select count(*) from pg_prepared_statements where statement like '%planned_words%id =%'"
    return int(connection.scalar(text(ours)))


def test_a_statement_is_prepared_once_and_run_by_its_plan(engine: Engine) -> None:
    wanted = select(words).where(words.c.id == bindparam("id")).order_by(words.c.id).limit(5)
    assert prepare(engine, wanted) is prepare(engine, wanted)
    for number in range(1, 15):
        with engine.begin() as connection:  # at a rollback psycopg drops its plans
            assert connection.execute(wanted, {"id": number}).one() == (number, f"100% {number}")
    with engine.connect() as connection:
        assert prepared(connection) == 1
        assert connection.execute(select(words)).fetchall()[3] == (4, "100% 4")
        assert prepared(connection) == 1


def test_a_plan_that_is_gone_is_prepared_again(engine: Engine) -> None:
    wanted = select(words.c.word).where(words.c.id == bindparam("id"))
    target = prepare(engine, wanted)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert connection.scalar(wanted, {"id": 1}) == "100% 1"
        if engine.dialect.name == "mysql":
            connection.exec_driver_sql(f"deallocate prepare {target.name}")
        else:
            connection.exec_driver_sql("discard all")
        assert connection.scalar(wanted, {"id": 2}) == "100% 2"
    engine.dispose()
    with engine.connect() as connection:
        assert connection.scalar(wanted, {"id": 3}) == "100% 3"


def test_in_a_transaction_of_postgresqls_the_error_says_what_to_do(engine: Engine) -> None:
    if engine.dialect.name == "mysql":
        pytest.skip("an error of MySQL's does not give the transaction up")
    wanted = "select * from planned_words where id = %(id)s"
    prepare(engine, wanted)

    def ask() -> Any:
        with engine.begin() as connection:
            return connection.exec_driver_sql(wanted, {"id": 1}).one()

    assert ask() == (1, "100% 1")
    with create_engine(engine.url, poolclass=NullPool).begin() as connection:
        connection.execute(text("alter table planned_words add more int"))
    with pytest.raises(PlanLost, match="run the whole transaction again"):
        ask()
    assert ask() == (1, "100% 1", None)


def test_what_cannot_be_prepared_is_refused(engine: Engine) -> None:
    for statement in ("drop table planned_words", 5):
        with pytest.raises(ConfigError):
            prepare(engine, statement)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="driver"):
        prepare(create_engine("sqlite://"), select(words))
    with pytest.raises(ConfigError, match="create_engine"):
        prepare("postgresql://", select(words))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES"])
def test_a_backslash_in_a_statement_means_what_it_means_without_a_plan(
    mode: str, engine: Engine
) -> None:
    if engine.dialect.name != "mysql":
        pytest.skip("a mode of MySQL's")
    with engine.begin() as connection:
        connection.execute(
            insert(words), [{"id": 21, "word": "a\\b"}, {"id": 22, "word": "a\\\\b"}]
        )
        connection.exec_driver_sql(f"set sql_mode = '{mode}'")
        sql = "select id from planned_words where word = 'a\\\\b' and id > %s"
        expected = connection.exec_driver_sql(sql, (0,)).fetchall()
        assert len(expected) == 1
        target = prepare(engine, sql)
        assert connection.exec_driver_sql(sql, (0,)).fetchall() == expected
        assert target.name in connection.connection.info["geventpool.prepared"]
        connection.exec_driver_sql("set sql_mode = default")
