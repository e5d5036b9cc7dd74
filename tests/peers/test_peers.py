"""The peers' own tests, from their source distributions, with GeventPool in the place of their pool."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from threading import Lock

import pytest

from .excluded import SQLALCHEMY
from .runner import Outcome, run_both, source_of

MINORS = os.environ.get("GEVENTPOOL_PEERS_SQLALCHEMY", "2.0 2.1").split()

Both = tuple[Outcome, Outcome | None]
_downloading = Lock()


def sqlalchemys(minor: str) -> Both:
    with _downloading:
        source = source_of(f"sqlalchemy~={minor}.0")
    tests = ["test/engine/test_pool.py", "test/engine/test_reconnect.py"]
    return run_both(source, "queuepool_stand_in", tests, [source / "lib"], all_pass=True)


def flask_sqlalchemys() -> Both:
    with _downloading:
        source = source_of(f"flask-sqlalchemy=={version('flask-sqlalchemy')}")
        # Many of its tests fail with SQLAlchemy 2.1, whatever the pool.
        paths = [source / "src", source_of("sqlalchemy~=2.0.0") / "lib"]
    return run_both(source, "flask_stand_in", ["tests"], paths)


@pytest.fixture(scope="module")
def outcome_of() -> Iterator[Callable[[str], Both]]:
    """All of them at once: they sleep most of the time."""
    with ThreadPoolExecutor() as threads:
        outcomes: dict[str, Future[Both]] = {
            minor: threads.submit(sqlalchemys, minor) for minor in MINORS
        }
        outcomes["flask"] = threads.submit(flask_sqlalchemys)
        yield lambda name: outcomes[name].result()


@pytest.mark.parametrize("minor", MINORS)
def test_sqlalchemys_own_pool_tests_pass_with_our_pool_as_queue_pool(
    minor: str, outcome_of: Callable[[str], Both]
) -> None:
    ours, theirs = outcome_of(minor)
    ours.check(theirs, SQLALCHEMY)


def test_flask_sqlalchemys_own_tests_pass_with_our_pool_in_every_engine(
    outcome_of: Callable[[str], Both],
) -> None:
    ours, theirs = outcome_of("flask")
    ours.check(theirs, {})
