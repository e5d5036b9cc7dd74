"""The doctor on real servers: a system with exactly one fault, where it names that one and no other."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gevent
import pymysql
import pytest
from gevent.monkey import get_original
from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from geventpool.doctor import CHECKS, Case, Deployment, Finding, Level, Target, examine
from geventpool.doctor.checks import server as checks
from geventpool.doctor.sources.engines import engine_of, target_of
from geventpool.doctor.symptoms import SYMPTOMS
from geventpool.sqlalchemy import GeventPool
from tools.system_packages import find

from .dbapi import eventually, open_connection, run, set_autocommit
from .proxy import Proxy

Url = Callable[..., str]

FOUR = Deployment(workers=4, source="the test")
SERVERS = ("mariadb", "postgresql")
DRIVERS = {
    "pymysql": "mariadb",
    "psycopg": "postgresql",
    "psycopg2": "postgresql",
    "pg8000": "postgresql",
}
PREFIXED = {"timeout", "recycle", "reset_on_return"}
USUAL = {"mariadb": "pymysql", "postgresql": "psycopg"}


@pytest.fixture
def url_of(request: pytest.FixtureRequest) -> Url:
    """The URL of a server, by its name, with its usual driver or another."""

    def url(server: str, driver: str | None = None) -> str:
        text: str = request.getfixturevalue(server).url(driver or USUAL[server])
        return text

    return url


def target(url: str, **settings: Any) -> Target:
    """Of a geventpool; settings that `create_engine` knows have its names there."""
    prefixed = {"pool_" + name if name in PREFIXED else name: settings[name] for name in settings}
    return target_of(create_engine(url, poolclass=GeventPool, **prefixed))


def faults(case: Case, **more: Any) -> list[str]:
    """The names of the checks that find something, the worst first."""
    found = examine(case, **more)
    for one in found:
        assert "the check has failed" not in one.judgement.measured, one
    return [one.check for one in found if one.level in (Level.LOOK, Level.WRONG)]


def the_one(case: Case, name: str) -> Finding:
    """The only fault."""
    assert faults(case) == [name]
    (found,) = (one for one in examine(case) if one.check == name)
    assert found.judgement.why
    assert found.judgement.cure
    return found


@contextlib.contextmanager
def said(url: str, before: str, after: str) -> Iterator[None]:
    """Has a server told something, and told back."""
    driver = url.partition("+")[2].partition(":")[0]

    def tell(statement: str) -> None:
        with contextlib.closing(open_connection(driver, url)) as connection:
            set_autocommit(driver, connection, True)
            for one in statement.split("; "):
                run(connection, one)

    tell(before)
    try:
        yield
    finally:
        tell(after)


@contextlib.contextmanager
def variable(url: str, name: str, value: object) -> Iterator[None]:
    """Gives a setting another value for the sessions that begin now."""
    if url.startswith("mysql"):
        with contextlib.closing(open_connection("pymysql", url)) as connection:
            ((before,),) = run(connection, f"select @@global.{name}")
        with said(url, f"set global {name} = {value}", f"set global {name} = {before}"):
            yield
    else:
        database = "alter database geventpool"
        with said(url, f"{database} set {name} = '{value}'", f"{database} reset {name}"):
            yield


@pytest.mark.parametrize("driver", DRIVERS)
def test_nothing_is_wrong_with_a_healthy_system(url_of: Url, driver: str) -> None:
    case = Case(targets=[target(url_of(DRIVERS[driver], driver))], deployment=FOUR)
    assert faults(case) == []
    seen = {one.check for one in examine(case) if one.level is Level.OK}
    assert {"server.reached", "driver.blocks", "server.max_connections", "server.proxy"} <= seen


@pytest.mark.parametrize("driver", ["psycopg2", "pymysql"])
def test_the_command_finds_nothing_wrong_with_a_healthy_database(
    url_of: Url, driver: str, tmp_path: Path
) -> None:
    url = url_of(DRIVERS[driver], driver)
    done = command(tmp_path, "--workers", "2", "--json", DATABASE_URL=url)
    assert done.returncode == 0, done.stdout
    told = json.loads(done.stdout)
    assert told["verdict"] == "ok"
    assert {one["check"] for one in told["findings"]} >= {"server.reached", "driver.blocks"}


def test_a_program_without_greenlets_may_have_a_driver_that_blocks(
    url_of: Url, tmp_path: Path
) -> None:
    pytest.importorskip("MySQLdb")
    (tmp_path / "shop.py").write_text(
        "import os\nfrom sqlalchemy import create_engine\n"
        "from geventpool.sqlalchemy import GeventPool\n"
        "engine = create_engine(os.environ['URL'], poolclass=GeventPool)\n"
    )
    url = url_of("mariadb", "mysqldb")
    done = command(tmp_path, "--app", "shop", "--workers", "2", URL=url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is wrong" in done.stdout


def command(folder: Path, *arguments: str, **environment: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "geventpool.cli", "doctor", *arguments],
        cwd=folder,
        env={**os.environ, "GEVENTPOOL_SNAPSHOTS": str(folder / "none"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_driver_that_blocks_is_named(url_of: Url) -> None:
    pytest.importorskip("MySQLdb")
    url = url_of("mariadb", "mysqldb")
    found = the_one(Case(targets=[target(url)], deployment=FOUR), "driver.cooperative")
    assert "PyMySQL" in found.judgement.cure


def test_psycopg2_without_psycogreen_is_named(url_of: Url) -> None:
    extensions = pytest.importorskip("psycopg2.extensions")
    before = extensions.get_wait_callback()
    extensions.set_wait_callback(None)
    try:
        case = Case(targets=[target(url_of("postgresql", "psycopg2"))], deployment=FOUR)
        found = the_one(case, "driver.cooperative")
    finally:
        extensions.set_wait_callback(before)
    assert "patch_psycopg" in found.judgement.cure


def test_a_driver_that_nobody_knows_is_named(url_of: Url) -> None:
    homemade = ModuleType("homemade.dbapi")
    vars(homemade).update({**vars(pymysql), "__name__": "homemade.dbapi"})
    url = url_of("mariadb", "pymysql")
    case = Case(targets=[target(url, module=homemade)], deployment=FOUR)
    assert "homemade.dbapi" in the_one(case, "driver.known").judgement.measured


def test_a_driver_in_a_package_of_others_is_known(url_of: Url) -> None:
    pytest.importorskip("mysql.connector")
    url = url_of("mariadb", "mysqlconnector")
    case = Case(targets=[target(url, connect_args={"use_pure": True})], deployment=FOUR)
    (found,) = (one for one in examine(case) if one.check == "driver.known")
    assert (found.level, "mysql.connector:" in found.judgement.measured) == (Level.OK, True)


def test_queries_that_block_are_measured_whatever_is_known_of_the_driver(url_of: Url) -> None:
    """psycopg2 has a callback that should yield, and blocks."""
    extensions = pytest.importorskip("psycopg2.extensions")
    select = get_original("select", "select")

    def wait(connection: Any) -> None:
        while (state := connection.poll()) != extensions.POLL_OK:
            one = [connection.fileno()]
            select(*((one, []) if state == extensions.POLL_READ else ([], one)), [], 10)

    before = extensions.get_wait_callback()
    extensions.set_wait_callback(wait)
    try:
        the_one(_case(url_of("postgresql", "psycopg2")), "driver.blocks")
    finally:
        extensions.set_wait_callback(before)


def test_an_old_driver_with_a_known_fault_is_named(
    url_of: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0.2")
    case = Case(targets=[target(url_of("mariadb"))], deployment=FOUR)
    assert "CVE-2024-36039" in the_one(case, "driver.version").judgement.why


def test_a_connect_that_makes_a_tls_context_is_named(
    url_of: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool is ours, so the driver was tuned; here something else computes in each connect."""
    made = target(url_of("mariadb"))

    def connect() -> Any:
        began = time.thread_time()
        while time.thread_time() < began + 0.02:
            pass
        return made.connect()

    case = Case(targets=[dataclasses.replace(made, connect=connect)], deployment=FOUR)
    the_one(case, "driver.connect_stall")


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"port": 1}, "start the server"),
        ({"password": "hunter2hunter2"}, "right user and password"),
        ({"database": "nowhere"}, "create the database"),
        ({"host": "nowhere.invalid"}, "host's name"),
    ],
)
def test_a_server_that_cannot_be_reached_is_told_with_the_cure(
    url_of: Url, server: str, change: dict[str, Any], cure: str
) -> None:
    changed = make_url(url_of(server)).set(**change).render_as_string(hide_password=False)
    found = the_one(Case(targets=[target(changed)], deployment=FOUR), "server.reached")
    assert cure in found.judgement.cure
    assert "hunter2" not in str(found.to_json())


@pytest.mark.parametrize("server", SERVERS)
def test_the_caps_of_all_processes_are_added_up(url_of: Url, server: str) -> None:
    made = target(url_of(server), max_size=20)
    many = Deployment(workers=4, hosts=3, source="the test")
    found = the_one(Case(targets=[made], deployment=many), "server.max_connections")
    assert "up to 240 (20 in each of 4 workers x 3 hosts)" in found.judgement.measured
    fits = Deployment(workers=2, hosts=2, source="the test")
    assert faults(Case(targets=[made], deployment=fits)) == []


@pytest.mark.parametrize("server", SERVERS)
def test_a_limit_of_the_user_is_named(url_of: Url, server: str) -> None:
    url = url_of(server)
    if server == "mariadb":
        user = "alter user geventpool@'%' with max_user_connections"
        limited = said(url, f"{user} 30", f"{user} 0")
    else:
        limit = "alter database geventpool connection limit"
        limited = said(url, f"{limit} 30", f"{limit} -1")
    with limited:
        found = the_one(Case(targets=[target(url)], deployment=FOUR), "server.user_limit")
    assert "30 connections, 80 are wanted" in found.judgement.measured


def test_a_server_that_is_nearly_full_is_named(url_of: Url) -> None:
    url = url_of("mariadb")
    with contextlib.ExitStack() as stack, variable(url, "max_connections", 20):
        for _ in range(17):
            stack.enter_context(contextlib.closing(open_connection("pymysql", url)))
        alone = Deployment(source="the test")
        found = the_one(
            Case(targets=[target(url, max_size=3)], deployment=alone), "server.nearly_full"
        )
    assert "17 of 20 connections are open (geventpool 17)" in found.judgement.measured


@pytest.mark.parametrize(
    ("server", "name", "value", "expected"),
    [
        ("mariadb", "wait_timeout", 20, "server.idle_timeout"),
        ("postgresql", "idle_session_timeout", "20s", "server.idle_timeout"),
        ("mariadb", "idle_transaction_timeout", 2, "server.transaction_timeout"),
        (
            "postgresql",
            "idle_in_transaction_session_timeout",
            "2s",
            "server.transaction_timeout",
        ),
        ("mariadb", "max_statement_time", 0.5, "server.statement_timeout"),
        ("postgresql", "statement_timeout", "500ms", "server.statement_timeout"),
        ("mariadb", "thread_cache_size", 0, "server.thread_cache"),
        ("mariadb", "read_only", 1, "server.read_only"),
        ("postgresql", "default_transaction_read_only", "on", "server.read_only"),
    ],
)
def test_a_servers_setting_that_does_harm_is_named(
    url_of: Url, server: str, name: str, value: object, expected: str
) -> None:
    url = url_of(server)
    if name == "default_transaction_read_only":
        undo = f"set {name} = off; alter database geventpool reset {name}"
        changed = said(url, f"alter database geventpool set {name} = on", undo)
    else:
        changed = variable(url, name, value)
    with changed:
        the_one(Case(targets=[target(url)], deployment=FOUR), expected)


@pytest.mark.parametrize("server", SERVERS)
def test_who_is_idle_in_a_transaction_is_named(
    url_of: Url, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_TOO_LONG_IN_TRANSACTION", 0.0)
    url = url_of(server)
    with contextlib.closing(open_connection(USUAL[server], url)) as connection:
        run(connection, "create table if not exists held (id int)")
        connection.commit()
        run(connection, "insert into held values (1)")
        assert eventually(lambda: faults(_case(url)) == ["server.idle_in_transaction"])


@pytest.mark.parametrize("server", SERVERS)
def test_who_waits_for_a_lock_is_named(url_of: Url, server: str) -> None:
    url, driver = url_of(server), USUAL[server]
    with contextlib.ExitStack() as stack:
        holder, waiter = (
            stack.enter_context(contextlib.closing(open_connection(driver, url))) for _ in range(2)
        )
        run(holder, "create table if not exists locked (id int primary key)")
        holder.commit()
        run(holder, "insert into locked values (1)")
        waiting = gevent.spawn(lambda: run(waiter, "insert into locked values (1)"))
        assert eventually(lambda: faults(_case(url)) == ["server.locks"])
        holder.rollback()
        waiting.join(5)
        waiter.rollback()


def _case(url: str) -> Case:
    return Case(targets=[target(url)], deployment=FOUR)


@pytest.mark.parametrize("server", SERVERS)
def test_queries_that_run_for_long_are_named(
    url_of: Url, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_LONG_QUERY", 0.0)
    url = url_of(server)
    nap = "select sleep(20)" if server == "mariadb" else "select pg_sleep(20)"
    connection = open_connection(USUAL[server], url)
    running = gevent.spawn(lambda: run(connection, nap))
    try:
        assert eventually(lambda: faults(_case(url)) == ["server.long_queries"])
    finally:
        running.kill()
        connection.close()
        assert eventually(lambda: _ends(url, nap))


def _ends(url: str, nap: str) -> bool:
    """Nobody naps any more: whose client has gone is ended."""
    is_mysql = url.startswith("mysql")
    driver = "pymysql" if is_mysql else "psycopg"
    with contextlib.closing(open_connection(driver, url)) as connection:
        if is_mysql:
            rows = run(
                connection, f"select id from information_schema.processlist where info = '{nap}'"
            )
            for (number,) in rows:
                run(connection, f"kill {number}")
        else:
            rows = run(
                connection,
                f"select pg_terminate_backend(pid) from pg_stat_activity where query = '{nap}'",
            )
    return not rows


def test_a_pool_that_does_not_notice_a_servers_idle_timeout_is_named(url_of: Url) -> None:
    url = url_of("mariadb")
    with variable(url, "wait_timeout", 600):
        plain = target_of(create_engine(url))
        found = faults(Case(targets=[plain], deployment=FOUR))
        assert found[0] == "server.idle_timeout"
        # What else there is to say of it is that it is not ours.
        assert set(found[1:]) <= {"settings.pool", "driver.connect_stall"}
        careful = target_of(create_engine(url, pool_recycle=300))
        assert "server.idle_timeout" not in faults(Case(targets=[careful], deployment=FOUR))
        assert faults(_case(url)) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_size": float("inf")}, "settings.cap"),
        ({"timeout": None}, "settings.timeout"),
        ({"timeout": 60}, "settings.timeout"),
        ({"timeout": 5, "connect_timeout": 10}, "settings.connect_timeout"),
        ({"min_idle": 35, "max_size": 35}, "settings.min_idle"),
        ({"recycle": 10}, "settings.recycle"),
        ({"ping_after": 0}, "settings.ping"),
        ({"ping_after": float("inf")}, "network.half_open"),
        ({"cancel_deadline": 0}, "settings.cancel"),
        ({"reset_on_return": None}, "settings.reset"),
        ({"reclaim_after": None}, "settings.reclaim"),
    ],
)
def test_a_pools_setting_that_does_harm_is_named(
    url_of: Url, settings: dict[str, Any], expected: str
) -> None:
    deployment = dataclasses.replace(FOUR, timeout=30.0, worker_class="gevent")
    made = target(url_of("mariadb"), **{"timeout": 30, **settings})
    found = faults(Case(targets=[made], deployment=deployment))
    assert expected in found
    # A pool without a limit is also one that may ask for more than the server has.
    assert set(found) <= {expected, "server.max_connections"}


def test_engines_of_other_pools_are_named(url_of: Url) -> None:
    bare = target_of(create_engine(url_of("postgresql"), poolclass=NullPool))
    assert (
        "no pool"
        in the_one(Case(targets=[bare], deployment=FOUR), "settings.pool").judgement.measured
    )
    plain = target_of(create_engine(url_of("postgresql")))
    found = the_one(Case(targets=[plain], deployment=FOUR), "settings.pool")
    assert "QueuePool of up to 15" in found.judgement.measured


def test_several_pools_of_one_database_are_named(url_of: Url) -> None:
    made = [target(url_of("postgresql"), max_size=5) for _ in range(2)]
    found = the_one(Case(targets=made, deployment=FOUR), "settings.several_pools")
    assert "2 pools of the same database (geventpool at 127.0.0.1" in found.judgement.measured


def test_a_sqlite_file_is_named(tmp_path: Path) -> None:
    made = target_of(engine_of(f"sqlite:///{tmp_path / 'shop.db'}"))
    the_one(Case(targets=[made], deployment=FOUR), "driver.sqlite")


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_is_far_away_is_named(url_of: Url, server: str) -> None:
    url = make_url(url_of(server))
    with Proxy(str(url.host), int(url.port or 0)) as proxy:
        proxy.delay(0.01)
        far = proxy.url(url.render_as_string(hide_password=False))
        found = the_one(Case(targets=[target(far)], deployment=FOUR), "network.round_trip")
    assert "ms" in found.judgement.measured


def test_a_slow_connect_is_named(url_of: Url) -> None:
    made = target(url_of("mariadb"))

    def connect() -> Any:
        gevent.sleep(0.15)  # as a server does that looks up names
        return made.connect()

    slow = dataclasses.replace(made, connect=connect)
    the_one(Case(targets=[slow], deployment=FOUR), "network.connect_time")


def test_a_slow_look_up_of_names_is_named(url_of: Url, monkeypatch: pytest.MonkeyPatch) -> None:
    made = target(url_of("mariadb"))
    named = dataclasses.replace(made, address=("db.shop", *made.address[1:]))
    look_up = socket.getaddrinfo

    def slowly(host: str, *arguments: Any, **more: Any) -> Any:
        if host == "db.shop":
            gevent.sleep(0.15)
            host = "127.0.0.1"
        return look_up(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    the_one(Case(targets=[named], deployment=FOUR), "network.name")


@pytest.fixture
def pgbouncer(postgresql: Any, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Starts PgBouncer in a mode, and gives the URL through it."""
    program = find("pgbouncer")
    if program is None:
        pytest.skip("NOT RUN: there is no pgbouncer")
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = postgresql
        (tmp_path / "users").write_text(f'"{server.user}" "{server.password}"\n')
        (tmp_path / "ini").write_text(
            f"[databases]\n{server.database} = host={server.host} port={server.port} "
            f"user={server.user} password={server.password}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = plain\nauth_file = {tmp_path / 'users'}\npool_mode = {mode}\n"
            "ignore_startup_parameters = extra_float_digits\n"
        )
        tmp_path.chmod(0o755)
        for parent in list(tmp_path.parents)[:4]:
            with contextlib.suppress(OSError):
                parent.chmod(parent.stat().st_mode | 0o055)
        command = [program, "-u", "nobody", str(tmp_path / "ini")]
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, stdout=quiet, stderr=quiet))
        url: str = server.url("psycopg").replace(f":{server.port}/", f":{port}/")

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        assert eventually(answers)
        return url

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def test_pgbouncer_by_transaction_is_named(pgbouncer: Callable[[str], str]) -> None:
    case = Case(targets=[target(pgbouncer("transaction"))], deployment=FOUR)
    assert "PgBouncer" in the_one(case, "server.proxy").judgement.measured


def test_pgbouncer_by_session_is_seen_and_no_fault(pgbouncer: Callable[[str], str]) -> None:
    case = Case(targets=[target(pgbouncer("session"))], deployment=FOUR)
    assert faults(case) == []
    (found,) = (one for one in examine(case) if one.check == "server.proxy")
    assert "PgBouncer" in found.judgement.measured


def test_what_a_user_may_not_see_is_said_and_is_no_fault(url_of: Url) -> None:
    url = url_of("mariadb")
    created = "create user looker@'%' identified by 'look'"
    with said(url, created, "drop user looker@'%'"):
        one = make_url(url).set(username="looker", password="look", database="information_schema")
        case = Case(targets=[target(one.render_as_string(hide_password=False))], deployment=FOUR)
        assert faults(case) == []
        unseen = [found for found in examine(case) if found.check == "server.rights"]
    assert "PROCESS" in unseen[0].judgement.measured


def test_of_a_symptom_its_checks_come_first(url_of: Url) -> None:
    made = target(url_of("mariadb"), recycle=10, max_size=100)
    case = Case(targets=[made], deployment=FOUR)
    assert faults(case, symptom="slow")[0] == "settings.recycle"
    assert faults(case, symptom="too many connections")[0] == "server.max_connections"


def test_every_symptom_leads_to_checks_and_all_checks_have_known_symptoms() -> None:
    used = {symptom for one in CHECKS.values() for symptom in one.symptoms}
    assert used == set(SYMPTOMS)


def test_a_check_that_fails_is_told_and_stops_no_other(url_of: Url) -> None:
    made = target(url_of("mariadb"))
    broken = dataclasses.replace(made, address=None)  # type: ignore[arg-type]
    found = examine(Case(targets=[broken], deployment=FOUR))
    assert any("the check has failed" in one.judgement.measured for one in found)
    assert any(one.check == "server.reached" and one.level is Level.OK for one in found)
