"""`select 1; connection.close()` in a loop: what a request pays for its connection.

python -m benchmarks.django.loop postgresql|mysql
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import argparse
from collections.abc import Callable
from functools import partial

import pymysql

pymysql.install_as_MySQLdb()

from tools.servers import MariaDB, PostgreSQL

from .setup import MOST, MYSQL, POSTGRESQL, compare, set_up, table

GREENLETS = 100


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.django.loop", description=__doc__)
    parser.add_argument("database", choices=["postgresql", "mysql"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.25, help="of one contender in one round")
    options = parser.parse_args()
    is_mysql = options.database == "mysql"
    contenders = MYSQL if is_mysql else POSTGRESQL
    with (MariaDB if is_mysql else PostgreSQL)(max_connections=300) as server:
        set_up(contenders, server.url("pymysql" if is_mysql else "psycopg"))
        units: dict[str, Callable[[], object]] = {name: partial(once, name) for name in contenders}
        for greenlets in (1, GREENLETS):
            rates = compare(units, options.rounds, options.seconds, greenlets)
            print(f"\n{options.database}, {greenlets} greenlet(s), pools of {MOST}:\n")
            print("\n".join(table(rates, "loop")), flush=True)


def once(alias: str) -> None:
    """What a small request does with its database."""
    from django.db import connections

    wrapper = connections[alias]
    with wrapper.cursor() as cursor:
        cursor.execute("select 1")
        cursor.fetchall()
    wrapper.close()


if __name__ == "__main__":
    main()
