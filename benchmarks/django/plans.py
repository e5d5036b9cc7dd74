"""A plan with eight joins that returns one row, and a look-up by key: prepared and not.

python -m benchmarks.django.plans psycopg|psycopg2|pymysql
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import argparse
import sys
from functools import partial
from typing import Any

from psycogreen.gevent import patch_psycopg

from tools.servers import MariaDB, PostgreSQL

from .setup import compare, set_up, table

TABLES = 9
ROWS = 2000


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.django.plans", description=__doc__)
    parser.add_argument("driver", choices=["psycopg", "psycopg2", "pymysql"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.25, help="of one contender in one round")
    options = parser.parse_args()
    is_mysql = options.driver == "pymysql"
    if is_mysql:
        import pymysql

        pymysql.install_as_MySQLdb()
    elif options.driver == "psycopg2":
        patch_psycopg()
    with (MariaDB if is_mysql else PostgreSQL)() as server:
        address = server.url(options.driver)
        if options.driver == "psycopg2":
            sys.modules["psycopg"] = None  # type: ignore[assignment]  # Django would prefer it
        engine = f"geventpool.django.{'mysql' if is_mysql else 'postgresql'}"
        set_up({name: {"ENGINE": engine} for name in ("geventpool", "unprepared")}, address)
        fill()
        for title, sql in (
            ("eight joins", joins()),
            ("look-up by key", "select v from t0 where id = %s"),
        ):
            import geventpool.django

            geventpool.django.add_prepare_target(sql, "geventpool")
            units: dict[str, Any] = {
                "prepared": partial(once, "geventpool", sql),
                "unprepared": partial(once, "unprepared", sql),
            }
            rates = compare(units, options.rounds, options.seconds, 1)
            print(f"\n{options.driver}, {title}, one greenlet:\n")
            print("\n".join(table(rates, "query", "prepared")), flush=True)


def joins() -> str:
    """One row of the first table, and what it refers to, eight times over."""
    others = " ".join(
        f"join t{number} on t{number}.id = t{number - 1}.next_id" for number in range(1, TABLES)
    )
    columns = ", ".join(f"t{number}.v" for number in range(TABLES))
    return f"select {columns} from t0 {others} where t0.id = %s"


def fill() -> None:
    """Tables that refer to each other, with an index for each join."""
    from django.db import connections

    with connections["unprepared"].cursor() as cursor:
        for number in range(TABLES):
            cursor.execute(
                f"create table t{number} (id int primary key, next_id int, v varchar(20))"
            )
            cursor.execute(f"create index i{number} on t{number} (next_id)")
            rows = ", ".join(f"({row}, {(row * 7 + 1) % ROWS}, 'v{row}')" for row in range(ROWS))
            cursor.execute(f"insert into t{number} values {rows}")
            cursor.execute(f"analyze {'table ' if _is_mysql() else ''}t{number}")
            if _is_mysql():
                cursor.fetchall()


def _is_mysql() -> bool:
    from django.db import connections

    return bool(connections["unprepared"].vendor == "mysql")


def once(alias: str, sql: str) -> None:
    """What a request does."""
    from django.db import connections

    wrapper = connections[alias]
    with wrapper.cursor() as cursor:
        cursor.execute(sql, [5])
        assert len(cursor.fetchall()) == 1
    wrapper.close()


if __name__ == "__main__":
    main()
