"""How often a view waits for the server: one query in autocommit, and one in `atomic`; as JSON.

python -m benchmarks.django.trips pymysql|psycopg|psycopg2 URL
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial

import pymysql
from psycogreen.gevent import patch_psycopg
from sqlalchemy.engine import make_url

pymysql.install_as_MySQLdb()

from tests.integration.wire import Wire

from ..round_trips import count
from .setup import MYSQL, POSTGRESQL, set_up


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.django.trips", description=__doc__)
    parser.add_argument("driver", choices=["pymysql", "psycopg", "psycopg2"])
    parser.add_argument("url")
    options = parser.parse_args()
    if options.driver == "psycopg2":
        patch_psycopg()
        sys.modules["psycopg"] = None  # type: ignore[assignment]  # else Django prefers it
    url = make_url(options.url)
    backends = MYSQL if options.driver == "pymysql" else POSTGRESQL
    ours = {"geventpool": backends["geventpool"]}
    kept = {"CONN_MAX_AGE, health checks": {**backends["CONN_MAX_AGE = 0"], **KEPT}}
    with Wire(url.host or "", url.port or 0) as wire:
        through = url.set(port=wire.port, host="127.0.0.1").render_as_string(hide_password=False)
        set_up({**ours, **kept}, through)
        kinds: dict[str, Callable[[str], None]] = {"autocommit": one, "atomic": in_atomic}
        found = {
            alias: {kind: count(wire, partial(view, alias, unit)) for kind, unit in kinds.items()}
            for alias in (*ours, *kept)
        }
    print(json.dumps(found))


KEPT = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}


def view(alias: str, unit: Callable[[str], None]) -> None:
    """What Django does around it at the start and the end of a request."""
    from django.db import connections

    wrapper = connections[alias]
    wrapper.close_if_unusable_or_obsolete()
    unit(alias)
    wrapper.close_if_unusable_or_obsolete()


def one(alias: str) -> None:
    """A query."""
    from django.db import connections

    with connections[alias].cursor() as cursor:
        cursor.execute("select 1")
        cursor.fetchall()


def in_atomic(alias: str) -> None:
    """A query in a transaction."""
    from django.db import transaction

    with transaction.atomic(alias):
        one(alias)


if __name__ == "__main__":
    main()
