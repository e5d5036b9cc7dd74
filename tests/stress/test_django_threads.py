"""Greenlets, threads of gevent and native threads on one alias of Django; and no patching at all.

Threads end and others come, also the one that was the first to use the pool.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from .server_side import IS_WHOLE

SECONDS = 20 if IS_WHOLE else 2
ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, sys

is_patched, seconds = sys.argv[1] == "patched", float(sys.argv[2])
if is_patched:
    from gevent import monkey
    monkey.patch_all()
    from psycogreen.gevent import patch_psycopg
    patch_psycopg()

import collections, json, random, time, warnings
warnings.simplefilter("ignore")
import gevent
from gevent.monkey import get_original
from tests.integration.django_cases.conftest import *
import geventpool.django
from geventpool.django import registry

start_thread = get_original("_thread", "start_new_thread")
sleep = gevent.sleep if is_patched else time.sleep
connections.settings["default"]["POOL"] = {"max_size": 5, "timeout": 60}
for wrapper in connections.all():
    wrapper.close()
registry._pools.clear()
end = time.monotonic() + seconds
latest = end + 60  # for as long, every kind is waited for
kinds = {"plain thread", *(["thread of gevent", "greenlet"] if is_patched else ["main thread"])}
rounds, errors, ended = collections.Counter(), [], []
most = 0

def goes_on():
    now = time.monotonic()
    return now < end or (now < latest and any(rounds[kind] <= 10 for kind in kinds))

def work(kind, times=10**9):
    global most
    try:
        while goes_on() and times:
            times -= 1
            token = random.randrange(10**9)
            found = request("default", f"select {token}")
            assert found == token, f"crossed: {found} for {token}"
            most = max(most, geventpool.django.pool().core.ledger.size)
            rounds[kind] += 1
    except BaseException as error:
        errors.append(f"{kind}: {error!r}")
    ended.append(kind)

# Who makes the pool is soon gone.
start_thread(work, ("first thread", 1))
while not ended:
    sleep(0.01)
for _ in range(3):
    start_thread(work, ("short thread", 20))
for _ in range(5):
    start_thread(work, ("plain thread",))
if is_patched:
    for _ in range(5):
        gevent.get_hub().threadpool.spawn(work, "thread of gevent")
    for _ in range(20):
        gevent.spawn(work, "greenlet")
else:
    work("main thread")
expected = 34 if is_patched else 10
while len(ended) < expected and time.monotonic() < latest + 60:
    sleep(0.05)
pool = geventpool.django.pool()
pool.core.ledger.check()
stats = pool.stats()
print(json.dumps({
    "rounds": rounds, "errors": errors, "ended": len(ended), "expected": expected, "most": most,
    "in_use": stats.in_use, "waiting": stats.waiting,
}))
sys.stdout.flush()
pool.close()
"""


@pytest.mark.parametrize("how", ["patched", "plain"])
@pytest.mark.parametrize("driver", ["pymysql", "psycopg", "psycopg2"])
def test_all_kinds_of_threads_share_one_alias(
    request: pytest.FixtureRequest, driver: str, how: str
) -> None:
    server: Any = request.getfixturevalue("mariadb" if driver == "pymysql" else "postgresql")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, how, str(SECONDS)],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "GEVENTPOOL_DJANGO_DRIVER": driver,
            "GEVENTPOOL_DJANGO_URL": make_url(server.url(driver)).render_as_string(
                hide_password=False
            ),
        },
        capture_output=True,
        text=True,
        timeout=SECONDS + 240,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    told = json.loads(done.stdout)
    assert told["errors"] == []
    assert told["ended"] == told["expected"], "no deadlock"
    assert 1 <= told["most"] <= 5, "the cap is held; where all are quick, one may do"
    assert (told["in_use"], told["waiting"]) == (0, 0)
    assert told["rounds"]["first thread"] == 1
    assert all(count > 10 for kind, count in told["rounds"].items() if kind != "first thread")
