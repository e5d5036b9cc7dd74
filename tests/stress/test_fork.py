"""A fork in each way there is: the child begins with nothing, and its parent notices nothing.

Parent and child connect through counting proxies of their own, so that what the child says on a socket of
its parent is seen as such.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from typing import Any

import gevent
import pytest
from sqlalchemy.engine import make_url

from ..integration.dbapi import open_connection, run, set_autocommit
from ..integration.wire import Wire
from .server_side import IS_WHOLE

SCRIPT = """
from gevent import monkey; monkey.patch_all()
from psycogreen.gevent import patch_psycopg; patch_psycopg()
import ctypes, gc, logging, multiprocessing, os, resource, sys, traceback
import gevent
from gevent.event import Event
from sqlalchemy import create_engine
from geventpool import ConnectionPool
from geventpool.sqlalchemy import GeventPool
from tests.integration.dbapi import open_connection, run

driver, parents_url, childs_url, door, fork, wait = sys.argv[1:]
logging.disable(logging.CRITICAL)  # what the child cannot give back it may say; not here
parent = os.getpid()

def connect():
    return open_connection(driver, parents_url if os.getpid() == parent else childs_url)

if door == "engine":
    dialect = "mysql" if driver == "pymysql" else "postgresql"
    engine = create_engine(f"{dialect}+{driver}://", creator=connect, poolclass=GeventPool, max_size=4)
    pool, lend = engine.pool, lambda: engine.raw_connection()
elif door == "django":
    if driver == "pymysql":
        import pymysql; pymysql.install_as_MySQLdb()
    elif driver == "psycopg2":
        sys.modules["psycopg"] = None
    import django, geventpool.django
    from django.conf import settings
    from django.db import connections
    from sqlalchemy.engine import make_url
    url = make_url(parents_url)
    kind = "mysql" if driver == "pymysql" else "postgresql"
    settings.configure(DATABASES={"default": {
        "ENGINE": f"geventpool.django.{kind}", "NAME": url.database, "USER": url.username,
        "PASSWORD": url.password, "HOST": url.host, "PORT": str(url.port), "POOL": {"max_size": 4},
    }})
    django.setup()
    pool = geventpool.django.pool()
    parameters_of_parent = pool.opener.get_connection_params
    pool.opener.get_connection_params = lambda: {
        **parameters_of_parent(),
        "port": make_url(parents_url if os.getpid() == parent else childs_url).port,
    }
    def lend():
        wrapper = connections["default"].copy()
        wrapper.ensure_connection()
        wrapper.set_autocommit(False)
        return wrapper
else:
    pool = ConnectionPool(connect, max_size=4)
    lend = pool.connection
ask = "select connection_id()" if driver == "pymysql" else "select pg_backend_pid()"

def ids(number):
    lent = [lend() for _ in range(number)]
    found = [run(one, ask)[0][0] for one in lent]
    for one in lent:
        one.close()
    return sorted(found)

def is_empty():
    stats = pool.stats()
    assert (stats.size, stats.opened, stats.waiting) == (0, 0, 0), stats

def end_inherited():  # in the middle of its transaction
    for end in ("commit", "close"):
        try:
            getattr(held, end)()
        except Exception:
            pass

def collect_inherited():
    global held
    held = None
    gc.collect()

# What the fork has to do without: descriptors, or the null device.
taken, limits = [], resource.getrlimit(resource.RLIMIT_NOFILE)

def take_away():
    if fork == "no null device":
        os.devnull = "/nowhere"
    if fork == "no descriptor left":
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
    if fork == "a lower limit":
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))

def give_back():
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for number in taken:
        monkey.get_original("os", "close")(number)

# Whatever the child does first with a pool has it begin anew.
FIRST = {
    "C, ended": end_inherited,
    "C, looked at": is_empty,
    "C, collected": collect_inherited,
    "C, borrowed": lambda: lend().close(),
    "C, in the loop": lambda: gevent.sleep(0),
}

def child():
    FIRST.get(fork, is_empty)()
    if fork != "C, borrowed":
        is_empty()
    if held is not None:
        end_inherited()
    go_on.set()  # this greenlet exists in the child, too, and uses what it had
    holder.join(5)
    assert holder.dead
    gc.collect()
    mine = ids(4)
    assert len(set(mine)) == 4 and not set(mine) & set(before), (mine, before)
    assert pool.stats().in_use == 0
    pool.close()

def run_child():
    status = 1
    try:
        child()
        status = 0
    except BaseException:
        traceback.print_exc()
    if wait == "sys.exit":
        sys.exit(status)
    os._exit(status)

before = ids(4)
held = lend()
run(held, "insert into forked values (1)")
mine = run(held, ask)

def hold():
    with_it = lend()
    run(with_it, ask)
    is_held.set()
    go_on.wait()
    try:
        run(with_it, ask)
        with_it.close()
    except Exception:  # in the child its socket leads nowhere
        if os.getpid() == parent:
            raise

is_held, go_on = Event(), Event()
holder = gevent.spawn(hold)
is_held.wait()
assert (pool.stats().in_use, pool.stats().idle) == (2, 2)
print("forking", flush=True)
sys.stdin.readline()

if fork == "multiprocessing":
    process = multiprocessing.get_context("fork").Process(target=run_child)
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode
else:
    how = {
        "plain": monkey.get_original("os", "fork"),
        "patched": os.fork,
        "gevent": gevent.os.fork,
        "gevent and watch": gevent.os.fork_and_watch,
        "no null device": os.fork,
        "no descriptor left": os.fork,
        "a lower limit": os.fork,
    }.get(fork, ctypes.PyDLL(None).fork)  # Python is told of none of the others
    take_away()
    pid = how()
    give_back()
    if pid == 0:
        if fork == "plain":
            gevent.reinit()
        run_child()
    is_gevents = fork != "plain" and not fork.startswith("C,")
    waitpid = os.waitpid if is_gevents else monkey.get_original("os", "waitpid")
    assert waitpid(pid, 0)[1] == 0

print("forked", flush=True)
sys.stdin.readline()
go_on.set()
holder.get()
assert run(held, ask) == mine
assert run(held, "select count(*) from forked") == [(1,)]
held.rollback()
held.close()
assert ids(4) == before
stats = pool.stats()
assert (stats.opened, stats.closed, stats.owners_ended) == (4, {}, 0), stats
print("fine", flush=True)
"""


DRIVERS = ["pymysql", "psycopg2", "psycopg"]
FORKS = ["plain", "patched", "gevent", "gevent and watch", "multiprocessing"]
FORKS_IN_WANT = ["no null device", "no descriptor left", "a lower limit"]
FORKS_IN_C = ["C, ended", "C, looked at", "C, collected", "C, borrowed", "C, in the loop"]
ALL_FORKS = FORKS + FORKS_IN_WANT + FORKS_IN_C
DOORS_AND_ENDS = list(product(["plain", "engine"], ["sys.exit", "os._exit"]))
# In short: each driver with each plain way to fork, the others with one driver each, and each door and end
# with some.
CASES = [
    (driver, fork, *DOORS_AND_ENDS[place])
    for (a, driver), (b, fork) in product(enumerate(DRIVERS), enumerate(ALL_FORKS))
    for place in range(len(DOORS_AND_ENDS))
    if IS_WHOLE
    or (place == (a + b) % len(DOORS_AND_ENDS) and (fork in FORKS or a == b % len(DRIVERS)))
] + [
    (DRIVERS[place % len(DRIVERS)], fork, "django", ("sys.exit", "os._exit")[place % 2])
    for place, fork in enumerate(ALL_FORKS)
]


@pytest.mark.parametrize(("driver", "fork", "door", "way"), CASES)
def test_the_child_never_touches_its_parents_sockets_and_the_parent_notices_nothing(
    request: pytest.FixtureRequest, driver: str, fork: str, door: str, way: str
) -> None:
    server: Any = request.getfixturevalue("mariadb" if driver == "pymysql" else "postgresql")
    url = make_url(server.url(driver))
    administrator = open_connection(driver, server.url(driver))
    set_autocommit(driver, administrator, True)
    run(administrator, "drop table if exists forked")
    run(administrator, "create table forked (x int)")
    administrator.close()

    with Wire(url.host, url.port) as parents, Wire(url.host, url.port) as childs:
        urls = [
            url.set(host="127.0.0.1", port=wire.port).render_as_string(hide_password=False)
            for wire in (parents, childs)
        ]
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, driver, *urls, door, fork, way],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout.readline() == "forking\n", process.stderr.read()
            assert parents.opened == 4
            said = bytes(parents.sent)
            process.stdin.write("\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            gevent.sleep(0.05)  # what is under way shall arrive
            touched = bytes(parents.sent)[len(said) :]
            out, errors = process.communicate("\n", timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        assert not errors, errors
        assert (answer, out) == ("forked\n", "fine\n")
        assert touched == b"", "the child has spoken on its parent's sockets"
        assert process.returncode == 0
        assert (parents.opened, childs.opened) == (4, 4)


UNPATCHED = """
import ctypes, json, os, sys, threading
from sqlalchemy import create_engine, text
from sqlalchemy.pool import QueuePool
from geventpool.sqlalchemy import GeventPool

url, kind = sys.argv[1:]
is_ours = kind == "ours"
pool = {"poolclass": GeventPool, "max_size": 5} if is_ours else {"poolclass": QueuePool}
engine = create_engine(url, pool_timeout=5, **pool)
ask = text("select connection_id()" if url.startswith("mysql") else "select pg_backend_pid()")

def number():
    with engine.connect() as connection:
        return connection.execute(ask).scalar_one()

def numbers_of_threads(wanted):
    # All hold theirs until each has one.
    all_there, found = threading.Barrier(wanted), []
    def work():
        with engine.connect() as connection:
            found.append(connection.execute(ask).scalar_one())
            all_there.wait(20)
    threads = [threading.Thread(target=work) for _ in range(wanted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found

parents = [number()]
reading, writing = os.pipe()
child = ctypes.PyDLL(None).fork()
if child == 0:
    childs = numbers_of_threads(3) if is_ours else [number()]
    os.write(writing, json.dumps(childs).encode())
    os._exit(0)
os.close(writing)
childs = json.load(os.fdopen(reading))
os.waitpid(child, 0)
print(json.dumps({"childs": childs, "parents": [*parents, number()]}))
"""


@pytest.mark.parametrize("driver", ["pymysql", "psycopg2", "psycopg"])
def test_a_program_that_is_not_patched_begins_anew_in_a_child_that_was_forked_in_c(
    request: pytest.FixtureRequest, driver: str
) -> None:
    server: Any = request.getfixturevalue("mariadb" if driver == "pymysql" else "postgresql")

    def numbers(kind: str) -> tuple[list[int], list[int]]:
        done = subprocess.run(
            [sys.executable, "-c", UNPATCHED, server.url(driver), kind],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not done.stderr, done.stderr
        told = json.loads(done.stdout)
        return told["childs"], told["parents"]

    childs, (before, after) = numbers("ours")
    assert len(set(childs)) == 3, "each thread of the child had a connection of its own"
    assert before not in childs
    assert before == after, "the parent kept its connection"

    childs, parents = numbers("QueuePool's")
    assert childs == parents[:1], "QueuePool's child uses its parent's connection"
