"""The peers' own tests, from their source distributions, with GeventPool in the place of their pool."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock

import gevent
import pytest

from .excluded import FLASK_SQLALCHEMY, SQLALCHEMY, SQLALCHEMY_1_4
from .runner import ROOT, Outcome, run_both, source_of

MINORS = os.environ.get("GEVENTPOOL_PEERS_SQLALCHEMY", "1.4 2.0 2.1").split()

# Each with what it was made for. With SQLAlchemy 2.1 many of its tests fail, whatever the pool.
FLASK_SQLALCHEMYS = {
    "2.5": ("flask-sqlalchemy~=2.5.1", "sqlalchemy~=1.4.0", "flask~=2.2.5", "werkzeug~=2.3.8"),
    "3.0": ("flask-sqlalchemy~=3.0.5", "sqlalchemy~=1.4.0"),
    "3.1": ("flask-sqlalchemy~=3.1.1", "sqlalchemy~=2.0.0"),
}
FLASKS = [
    name
    for name, made_for in FLASK_SQLALCHEMYS.items()
    if any(f"sqlalchemy~={minor}.0" in made_for for minor in MINORS)
]

Both = tuple[Outcome, Outcome | None]
_downloading = Lock()


def sqlalchemys(minor: str) -> Both:
    with _downloading:
        source = source_of(f"sqlalchemy~={minor}.0")
    tests = ["test/engine/test_pool.py", "test/engine/test_reconnect.py"]
    return run_both(source, "queuepool_stand_in", tests, [source / "lib"], all_pass=True)


def paths_of(requirements: tuple[str, ...]) -> list[Path]:
    with _downloading:
        sources = [source_of(one) for one in requirements]
    return [inner for one in sources for inner in (one / "src", one / "lib", one) if inner.exists()]


def flask_sqlalchemys(name: str) -> Both:
    requirements = FLASK_SQLALCHEMYS[name]
    paths = paths_of(requirements)
    return run_both(source_of(requirements[0]), "flask_stand_in", ["tests"], paths)


@pytest.fixture(scope="module")
def outcome_of() -> Iterator[Callable[[str], Both]]:
    """All of them at once: they sleep most of the time.

    Greenlets, because an executor holds a lock while it starts a thread, and a fork wants that lock:
    where threads are greenlets, the two may wait for each other.
    """
    outcomes = {f"sqlalchemy {minor}": gevent.spawn(sqlalchemys, minor) for minor in MINORS}
    outcomes |= {f"flask {name}": gevent.spawn(flask_sqlalchemys, name) for name in FLASKS}
    yield lambda name: outcomes[name].get()
    gevent.joinall(list(outcomes.values()))


@pytest.mark.parametrize("minor", MINORS)
def test_sqlalchemys_own_pool_tests_pass_with_our_pool_as_queue_pool(
    minor: str, outcome_of: Callable[[str], Both]
) -> None:
    ours, theirs = outcome_of(f"sqlalchemy {minor}")
    ours.check(theirs, SQLALCHEMY_1_4 if minor == "1.4" else SQLALCHEMY)


@pytest.mark.parametrize("name", FLASKS)
def test_flask_sqlalchemys_own_tests_pass_with_our_pool_in_every_engine(
    name: str, outcome_of: Callable[[str], Both]
) -> None:
    ours, theirs = outcome_of(f"flask {name}")
    ours.check(theirs, FLASK_SQLALCHEMY if name == "2.5" else {})


PROGRAM = """
import warnings
warnings.simplefilter("ignore")
from gevent import monkey
monkey.patch_all()
import flask_sqlalchemy, sqlalchemy
from flask import Flask
from geventpool.flask import GeventPool

order, folder = __import__("sys").argv[1:]
app = Flask("shop")
app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder}/main.db"
app.config["SQLALCHEMY_BINDS"] = {"reports": f"sqlite:///{folder}/reports.db"}
app.config["GEVENTPOOL_MAX_SIZE"] = 7
if order == "db first":
    db = flask_sqlalchemy.SQLAlchemy(app)
    GeventPool(app, db)
else:
    GeventPool(app)
    db = flask_sqlalchemy.SQLAlchemy(app)

@app.get("/")
def page():
    return str(db.session.execute(sqlalchemy.text("select 1")).scalar())

print(app.test_client().get("/").text)
with app.app_context():
    pools = app.extensions["geventpool"].pools
    assert pools[None] is db.engine.pool
    print({key: (type(pool).__module__, pool.config.max_size) for key, pool in pools.items()})
    print(pools[None].stats().checkouts)
"""


@pytest.mark.parametrize("order", ["db first", "pool first"])
@pytest.mark.parametrize("name", sorted({"2.5"} & set(FLASKS)))  # the others are what we work with
def test_our_extension_wraps_every_bind(name: str, order: str, tmp_path: Path) -> None:
    paths = [*paths_of(FLASK_SQLALCHEMYS[name]), ROOT]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-c", PROGRAM, order, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    ours = ("geventpool.sqlalchemy.pool", 7)
    assert done.stdout.splitlines() == ["1", str({None: ours, "reports": ours}), "1"], done.stderr
