"""Greenlets, gevent's own threads and plain native threads on one engine; and no patching at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .server_side import IS_WHOLE

DRIVERS = ["pymysql", "psycopg2", "psycopg", "pg8000"]
SECONDS = 20 if IS_WHOLE else 2
ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys

is_patched, url, seconds = sys.argv[1] == "patched", sys.argv[2], float(sys.argv[3])
if is_patched:
    from gevent import monkey
    monkey.patch_all()
    from psycogreen.gevent import patch_psycopg
    patch_psycopg()

import collections, json, random, time
import gevent
from gevent.monkey import get_original
from sqlalchemy import create_engine, text
from geventpool.sqlalchemy import GeventPool

start_thread = get_original("_thread", "start_new_thread")
sleep = gevent.sleep if is_patched else time.sleep
engine = create_engine(url, poolclass=GeventPool, max_size=5, pool_timeout=60)
end = time.monotonic() + seconds
latest = end + 60  # for as long, every kind is waited for
kinds = {"plain thread", *(["thread of gevent", "greenlet"] if is_patched else ["main thread"])}
rounds, errors, ended = collections.Counter(), [], []
most = 0

def goes_on():
    now = time.monotonic()
    return now < end or (now < latest and any(rounds[kind] <= 10 for kind in kinds))

def work(kind):
    global most
    try:
        while goes_on():
            token = random.randrange(10**9)
            with engine.connect() as connection:
                found = connection.execute(text(f"select {token}")).scalar_one()
                assert found == token, f"crossed: {found} for {token}"
            most = max(most, engine.pool.core.ledger.size)
            rounds[kind] += 1
    except BaseException as error:
        errors.append(f"{kind}: {error!r}")
    ended.append(kind)

for _ in range(5):
    start_thread(work, ("plain thread",))
if is_patched:
    for _ in range(5):
        gevent.get_hub().threadpool.spawn(work, "thread of gevent")
    for _ in range(20):
        gevent.spawn(work, "greenlet")
else:
    work("main thread")
expected = 30 if is_patched else 6
while len(ended) < expected and time.monotonic() < latest + 60:
    sleep(0.05)
engine.pool.core.ledger.check()
stats = engine.pool.stats()
engine.dispose()
print(json.dumps({
    "rounds": rounds, "errors": errors, "ended": len(ended), "expected": expected, "most": most,
    "in_use": stats.in_use, "waiting": stats.waiting,
}))
"""


@pytest.mark.parametrize(
    ("how", "driver"),
    [("patched", driver) for driver in DRIVERS]
    + [("plain", driver) for driver in (DRIVERS if IS_WHOLE else ["pymysql"])],
)
def test_all_kinds_of_threads_share_one_engine(
    request: pytest.FixtureRequest, driver: str, how: str
) -> None:
    server: Any = request.getfixturevalue("mariadb" if driver == "pymysql" else "postgresql")
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            PROGRAM,
            how,
            server.url(driver),
            str(SECONDS),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS + 240,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    told = json.loads(done.stdout)
    assert told["errors"] == []
    assert told["ended"] == told["expected"], "no deadlock"
    assert 1 < told["most"] <= 5, "the cap is held"
    assert (told["in_use"], told["waiting"]) == (0, 0)
    assert all(count > 10 for count in told["rounds"].values()), told["rounds"]
