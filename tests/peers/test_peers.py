"""The peers' own tests, from their source distributions, with GeventPool in the place of their pool."""

from __future__ import annotations

import os
from importlib.metadata import version

import pytest

from . import excluded
from .runner import run, source_of

MINORS = os.environ.get("GEVENTPOOL_PEERS_SQLALCHEMY", "2.0 2.1").split()


@pytest.mark.parametrize("minor", MINORS)
def test_sqlalchemys_own_pool_tests_pass_with_our_pool_as_queue_pool(minor: str) -> None:
    source = source_of(f"sqlalchemy~={minor}.0")
    tests = ["test/engine/test_pool.py", "test/engine/test_reconnect.py"]
    outcome = run(source, "queuepool_stand_in", tests, [source / "lib"])
    outcome.check(excluded.SQLALCHEMY, at_least=180)


def test_flask_sqlalchemys_own_tests_pass_with_our_pool_in_every_engine() -> None:
    source = source_of(f"flask-sqlalchemy=={version('flask-sqlalchemy')}")
    # Many of its tests fail with SQLAlchemy 2.1, whatever the pool.
    paths = [source / "src", source_of("sqlalchemy~=2.0.0") / "lib"]
    run(source, "flask_stand_in", ["tests"], paths).check(excluded.FLASK_SQLALCHEMY, at_least=350)
