"""`geventpool migrate`: what it proposes runs, means what the reasons say, and shows no secret."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine

from geventpool.cli import main
from geventpool.config import make_config
from geventpool.django.settings import read
from geventpool.migrate import plan_for, plans_in
from geventpool.migrate.command import url_after
from geventpool.simulator import make_trace
from geventpool.sqlalchemy import GeventPool

URL = "mysql+pymysql://u:hunter2@h/d"


def proposed(source: str, name: str = "settings.py") -> str:
    plan = plan_for(source, name)
    assert plan is not None
    return plan.after


def unchanged(source: str, name: str = "settings.py") -> list[str]:
    """The notes of a source in which nothing is to be changed."""
    plan = plan_for(source, name)
    assert plan is None or not plan.is_changed
    return [] if plan is None else [one.text for one in plan.reasons]


def run(source: str, **names: Any) -> dict[str, Any]:
    """What a source defines."""
    exec(compile(source, "proposed", "exec"), names)
    return names


def reasons(source: str, name: str = "settings.py") -> str:
    plan = plan_for(source, name)
    assert plan is not None
    return "\n".join(one.text for one in plan.reasons)


# --- SQLAlchemy ---


@pytest.mark.parametrize(
    "call",
    [
        f"create_engine({URL!r})",
        f"create_engine({URL!r}, pool_size=5, max_overflow=7, pool_pre_ping=True)",
        f"create_engine(\n    {URL!r},\n    pool_recycle=3600,\n    pool_timeout=9,\n)",
        f"create_engine({URL!r}, poolclass=QueuePool, pool_size=5)",
        f"create_engine({URL!r}, **{{'pool_size': 5, 'max_overflow': 7}})",
        f"sqlalchemy.create_engine({URL!r}, echo=False)",
    ],
)
def test_an_engine_gets_the_pool_and_keeps_what_it_was_told(call: str) -> None:
    source = (
        '"""Doc."""\nimport sqlalchemy\nfrom sqlalchemy import create_engine\n'
        f"from sqlalchemy.pool import QueuePool\n\nengine = {call}\n"
    )
    engine = run(proposed(source))["engine"]
    assert type(engine.pool) is GeventPool
    before = run(source)["engine"]
    if "pool_size" in call:
        cap = before.pool.size() + before.pool._max_overflow
        assert engine.pool.config.max_size == cap
    assert engine.pool.config.pre_ping == before.pool._pre_ping
    assert engine.pool.config.recycle == before.pool._recycle
    assert engine.pool.config.timeout == before.pool._timeout


@pytest.mark.parametrize(
    ("call", "note"),
    [
        (f"create_engine({URL!r}, poolclass=NullPool)", "NullPool is meant"),
        ("create_engine('sqlite:///shop.db')", "SQLite has no server"),
        (f"create_async_engine({URL!r})", "asyncio"),
        (f"create_engine({URL!r}, pool=mine)", "made elsewhere"),
        ("engine_from_config(config)", "add poolclass"),
        ("engine_from_config(config, poolclass=pool.NullPool)", "NullPool is meant"),
    ],
)
def test_an_engine_that_is_better_left_is_left(call: str, note: str) -> None:
    (said,) = unchanged(f"from sqlalchemy import *\nengine = {call}\n")
    assert note in said


def test_an_engine_of_ours_and_a_create_engine_of_somebody_elses_are_left() -> None:
    assert (
        unchanged(f"from sqlalchemy import *\nx = create_engine({URL!r}, poolclass=GeventPool)")
        == []
    )
    assert unchanged("from steam import create_engine\nx = create_engine('v8')\n") == []


def test_reasons_say_what_becomes_of_each_argument() -> None:
    arguments = "pool_size=5, max_overflow=7, pool_pre_ping=True, pool_recycle=60"
    said = reasons(
        f"from sqlalchemy import *\nengine = create_engine('mysql://u@h/d', {arguments})\n"
    )
    assert "pool_size + max_overflow, 12, is the hard cap" in said
    assert "pool_pre_ping stays" in said
    assert "pool_recycle stays" in said
    assert "mysql+pymysql://" in said
    assert "no cap" in reasons(
        f"from sqlalchemy import *\ncreate_engine({URL!r}, max_overflow=-1)\n"
    )


def test_what_is_added_fits_around_letters_of_several_bytes() -> None:
    source = (
        f"from sqlalchemy import create_engine\nä = 'ö'; engine = create_engine({URL!r})  # ü\n"
    )
    assert type(run(proposed(source))["engine"].pool) is GeventPool
    assert "  # ü\n" in proposed(source)


# --- Flask, as public applications have it ---


FLASK = {
    # getredash/redash: settings that Flask-SQLAlchemy 3 ignores, from the environment.
    "old settings": (
        "import os\n"
        f"SQLALCHEMY_DATABASE_URI = os.environ.get('NO_SUCH_VARIABLE', {URL!r})\n"
        "SQLALCHEMY_MAX_OVERFLOW = int(os.environ.get('NO_SUCH_VARIABLE', '7'))\n"
        "SQLALCHEMY_POOL_SIZE = int(os.environ.get('NO_SUCH_VARIABLE', '5'))\n"
        "SQLALCHEMY_ECHO = False\n",
        12,
    ),
    # A class of a configuration with options, as most have it.
    "options": (
        "import os\nclass Config:\n"
        f"    SQLALCHEMY_DATABASE_URI = {URL!r}\n"
        "    SQLALCHEMY_ENGINE_OPTIONS = {\n"
        "        'pool_pre_ping': True,\n"
        "        'pool_recycle': 280,  # before the proxy does\n"
        "        'pool_size': 5,\n"
        "        'max_overflow': 10\n"
        "    }\n",
        15,
    ),
    "one line": (
        f"SQLALCHEMY_DATABASE_URI = {URL!r}\nSQLALCHEMY_ENGINE_OPTIONS = {{'pool_size': 5}}\n",
        15,
    ),
    "empty": (
        f"SQLALCHEMY_DATABASE_URI = {URL!r}\nSQLALCHEMY_ENGINE_OPTIONS = {{}}\n",
        20,
    ),
    "queuepool": (
        "from sqlalchemy.pool import QueuePool\n"
        f"SQLALCHEMY_DATABASE_URI = {URL!r}\n"
        "SQLALCHEMY_ENGINE_OPTIONS = {'poolclass': QueuePool, 'pool_size': 5}\n",
        15,
    ),
    "nothing": (f"class Production:\n    SQLALCHEMY_DATABASE_URI = {URL!r}\n", 20),
}


@pytest.mark.parametrize("kind", FLASK)
def test_flasks_engine_options_get_the_pool(kind: str) -> None:
    source, cap = FLASK[kind]
    names = run(proposed(source))
    config = next((one for one in names.values() if hasattr(one, "SQLALCHEMY_DATABASE_URI")), None)
    found = vars(config) if config is not None else names
    engine = create_engine(found["SQLALCHEMY_DATABASE_URI"], **found["SQLALCHEMY_ENGINE_OPTIONS"])
    assert type(engine.pool) is GeventPool
    assert engine.pool.config.max_size == cap
    assert "SQLALCHEMY_POOL_SIZE" not in found


def test_the_configuration_of_an_application_object_is_found() -> None:
    uri = f"app.config['SQLALCHEMY_DATABASE_URI'] = {URL!r}"
    source = f"from flask import Flask\napp = Flask('a')\n{uri}\n"
    app = run(proposed(source))["app"]
    assert app.config["SQLALCHEMY_ENGINE_OPTIONS"] == {"poolclass": GeventPool}


@pytest.mark.parametrize(
    "source",
    [
        # CTFd/CTFd: SQLite by default.
        "SQLALCHEMY_DATABASE_URI = 'sqlite:///ctfd.db'\n",
        f"app.config.update(SQLALCHEMY_DATABASE_URI={URL!r})\n",
        f"config = {{'SQLALCHEMY_DATABASE_URI': {URL!r}}}\n",
        "SQLALCHEMY_ENGINE_OPTIONS = make_options()\n",
    ],
)
def test_where_a_line_cannot_be_added_there_is_a_note(source: str) -> None:
    assert len(unchanged(source)) == 1


# --- Django, as public applications have it ---

DJANGO: dict[str, tuple[str, dict[str, Any]]] = {
    # healthchecks/healthchecks: a name of the backend that Django has dropped.
    "old name": (
        "DATABASES = {\n    'default': {\n"
        "        'ENGINE':   'django.db.backends.postgresql_psycopg2',\n"
        "        'NAME':     'hc',\n        'TEST': {'CHARSET': 'UTF8'}\n    }\n}\n",
        {},
    ),
    # safe-global/safe-transaction-service: entries that are assigned one by one.
    "assigned": (
        'DATABASES = {"default": env.db("DATABASE_URL")}\n'
        'DATABASES["default"]["ATOMIC_REQUESTS"] = False\n'
        'DATABASES["default"]["ENGINE"] = "django_db_geventpool.backends.postgresql_psycopg3"\n'
        'DATABASES["default"]["CONN_MAX_AGE"] = 0\n'
        'DB_MAX_CONNS = env.int("DB_MAX_CONNS", default=50)\n'
        'DATABASES["default"]["OPTIONS"] = {\n'
        '    "MAX_CONNS": DB_MAX_CONNS,\n'
        '    "REUSE_CONNS": env.int("DB_REUSE_CONNS", default=DB_MAX_CONNS),\n'
        '    "options": "-c statement_timeout=60000",\n}\n',
        {"max_size": 50},
    ),
    # The same, since it uses Django's own pool.
    "assigned, Django's own pool": (
        'DATABASES = {"default": env.db("DATABASE_URL")}\n'
        'DATABASES["default"]["ENGINE"] = "django.db.backends.postgresql"\n'
        'DATABASES["default"]["CONN_MAX_AGE"] = 60\n'
        'DATABASES["default"]["OPTIONS"] = {\n'
        '    "options": "-c statement_timeout=60000",\n    "pool": {\n'
        '        "min_size": env.int("DB_MIN_CONNS", default=4),  # kept\n'
        '        "max_size": env.int("DB_MAX_CONNS", default=100),\n'
        '        "max_lifetime": 300,\n        "max_idle": 120,\n    },\n}\n',
        {"min_idle": 4, "max_size": 100, "recycle": 300},
    ),
    "django-db-geventpool": (
        'DATABASES = {"default": {**parse("x"), "ENGINE": '
        '"django_db_geventpool.backends.postgresql_psycopg2", "CONN_MAX_AGE": 0, '
        '"OPTIONS": {"MAX_CONNS": 100}}}\n',
        {"max_size": 100},
    ),
    "django-db-connection-pool": (
        "DATABASES = {\n    'default': {\n       'ENGINE': 'dj_db_conn_pool.backends.mysql',\n"
        "       'NAME': 'rules',\n       'PASSWORD': 'hunter2',\n       'POOL_OPTIONS': {\n"
        "            'POOL_SIZE': 10,\n            'MAX_OVERFLOW': -1,\n"
        "            'RECYCLE': 28800\n        }\n    }\n}\n",
        {"pool_size": 10, "max_overflow": -1, "recycle": 28800},
    ),
    "in small letters": (
        'DATABASES = {"default": {\n    "ENGINE": "dj_db_conn_pool.backends.postgresql",\n'
        '    "NAME": env("POSTGRES_DB"),\n    "POOL_OPTIONS": {"max_overflow": 10, "pool_size": 10, '
        '"recycle": 24 * 60 * 60},\n}}\n',
        {"pool_size": 10, "max_overflow": 10, "recycle": 86400},
    ),
    "with a prefix": (
        "DATABASES = {'default': {'ENGINE': 'dj_db_conn_pool.backends.postgresql', 'NAME': 's', "
        "'OPTIONS': {'sslmode': 'require'}, 'POOL_OPTIONS': {'POOL_SIZE': 3, 'MAX_OVERFLOW': 2, "
        "'PRE_PING': True, 'POOL_TIMEOUT': 3, 'POOL_RESET_ON_RETURN': 'rollback'}}}\n",
        {
            "pool_size": 3,
            "max_overflow": 2,
            "pre_ping": True,
            "timeout": 3,
            "reset_on_return": "rollback",
        },
    ),
    "kept connections": (
        'DATABASES = {"default": {\n    "ENGINE": "django.db.backends.mysql",\n'
        '    "CONN_MAX_AGE": 60,  # a minute\n    "CONN_HEALTH_CHECKS": True,\n    "NAME": "s"}}\n',
        {},
    ),
    "Django's own pool": (
        'DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "s", '
        '"OPTIONS": {"pool": {"min_size": 2, "max_size": 8, "timeout": 10, "name": "x"}}}}\n',
        {"min_idle": 2, "max_size": 8, "timeout": 10},
    ),
}


class Env:
    """Stands for environ's `env` and dj_database_url's `parse`."""

    def __call__(self, name: str, default: Any = None) -> Any:
        return default or name

    def db(self, name: str) -> dict[str, Any]:
        return {"NAME": "d"}

    def int(self, name: str, default: int) -> int:
        return default


@pytest.mark.parametrize("kind", DJANGO)
def test_an_alias_gets_our_engine_and_the_settings_of_the_pool_that_it_had(kind: str) -> None:
    source, expected = DJANGO[kind]
    env = Env()
    alias = run(proposed(source), env=env, parse=lambda text: {"NAME": text})["DATABASES"][
        "default"
    ]
    assert alias["ENGINE"].startswith("geventpool.django.")
    assert alias.get("POOL", {}) == expected
    settings = read("default", {"OPTIONS": {}, **alias})
    assert make_config(**settings.given) == make_config(**expected)
    assert alias.get("CONN_MAX_AGE", 0) == 0
    assert not {"POOL_OPTIONS", "CONN_HEALTH_CHECKS"} & alias.keys()
    assert not {"MAX_CONNS", "REUSE_CONNS", "pool"} & alias.get("OPTIONS", {}).keys()
    before = run(source, env=env, parse=lambda text: {"NAME": text})["DATABASES"]["default"]
    assert alias["NAME"] == before["NAME"]
    left = {name for name in before.get("OPTIONS", {}) if name in ("sslmode", "options")}
    assert left <= alias.get("OPTIONS", {}).keys()


def test_sqlite_and_foreign_backends_of_django_are_left() -> None:
    sqlite = "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': 'x'}}\n"
    assert unchanged(sqlite) == []
    oracle = "DATABASES = {'default': {'ENGINE': 'django.db.backends.oracle', 'NAME': 'x'}}\n"
    assert "no backend of ours" in unchanged(oracle)[0]
    computed = "DATABASES = {'default': env.db('DATABASE_URL')}\n"
    assert "geventpool.django.postgresql" in unchanged(computed)[0]


# --- gunicorn ---


def test_gunicorn_gets_the_gevent_worker_and_the_hooks() -> None:
    source = "bind = ':8000'\nworkers = 4\nworker_class = 'gthread'\nthreads = 8\n"
    names = run(proposed(source, "gunicorn.conf.py"))
    assert names["worker_class"] == "gevent"
    assert {"post_fork", "worker_exit", "worker_int"} <= names.keys()
    assert "threads has no meaning" in reasons(source, "gunicorn.conf.py")


def test_gunicorns_own_hooks_are_kept_and_told_what_to_call() -> None:
    source = "worker_class = 'gevent'\npreload_app = True\ndef worker_exit(server, worker): pass\n"
    after = proposed(source, "conf.py")
    assert "import post_fork, worker_int\n" in after
    said = reasons(source, "conf.py")
    assert "call geventpool.gunicorn.worker_exit from this hook" in said
    assert "patch_all" in said


def test_gevent_workers_of_ones_own_stay() -> None:
    source = 'worker_class = "custom.MyGeventWorker"  # ours\n'
    assert run(proposed(source, "conf.py"))["worker_class"] == "custom.MyGeventWorker"
    assert "serves greenlets" in reasons(source, "conf.py")


def test_a_line_is_added_below_a_comment_and_a_long_one_is_broken() -> None:
    source = "import os  # noqa\n" + FLASK["old settings"][0].partition("\n")[2]
    after = proposed(source)
    assert "import os  # noqa\nfrom geventpool" in after
    assert max(map(len, after.splitlines())) <= 110
    assert '\n    "pool_size": int(' in after


# --- the command ---


def migrate(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["migrate", *arguments])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shop = tmp_path / "shop"
    (shop / "venv").mkdir(parents=True)
    engine = f"from sqlalchemy import create_engine\nengine = create_engine({URL!r})\n"
    (shop / "db.py").write_text(engine)
    (shop / "venv" / "db.py").write_text(engine)
    (shop / "settings.py").write_text(
        "SECRET_KEY = 'hunter2'\n" + DJANGO["django-db-connection-pool"][0]
    )
    (shop / "gunicorn.conf.py").write_text("worker_class = 'sync'\n")
    (shop / "broken.py").write_text("create_engine(\n")
    (shop / "latin.py").write_bytes(b"# create_engine \xe4\n")
    return shop


def test_a_tree_is_shown_as_a_diff_with_reasons_and_left_as_it_is(tree: Path) -> None:
    before = {file: file.read_bytes() for file in tree.rglob("*") if file.is_file()}
    said = migrate(str(tree))
    assert "poolclass=GeventPool" in said
    assert "+       'ENGINE': 'geventpool.django.mysql'," in said
    assert '+worker_class = "gevent"' in said
    assert "line 2: the cap is 20 instead of 5 + 10" in said
    assert "at run time:" in said
    assert "hunter2" not in said
    assert {file: file.read_bytes() for file in tree.rglob("*") if file.is_file()} == before
    assert [Path(plan.name).name for plan in plans_in(tree)] == [
        "db.py",
        "gunicorn.conf.py",
        "settings.py",
    ]


@pytest.mark.parametrize(
    "call",
    [
        "create_engine(URL.create('mysql+pymysql', 'shop', 'hunter2', 'h'))",
        "create_engine('mysql+pymysql://', creator=lambda: pymysql.connect('h', 'shop', \"hunter2\"))",
        "create_engine('mysql+pymysql://h/d', connect_args={'password': 'hunter2'})",
        "create_engine('mysql+pymysql://h/d', connect_args=dict(passwd='hunter2'))",
        "create_engine('mysql+pymysql://shop:hunter2@h/d')",
        "create_engine('mysql+pymysql://h/d?user=shop&password=hunter2')",
    ],
)
def test_no_way_to_give_a_password_shows_it(tmp_path: Path, call: str) -> None:
    imports = "from sqlalchemy.engine import URL, create_engine\n"
    (tmp_path / "db.py").write_text(f"{imports}engine = {call}\n")
    for arguments in ([], ["--json"]):
        said = migrate(str(tmp_path), *arguments)
        assert "poolclass=GeventPool" in said
        assert "hunter2" not in said


def test_json_shows_no_secret_either(tree: Path) -> None:
    said = migrate(str(tree), URL, "--json")
    told = json.loads(said)
    assert told[0]["after"].endswith("@h/d?plugin=geventpool")
    assert all(one["diff"] for one in told[1:])
    assert "hunter2" not in said


def test_both_pools_are_compared_on_a_recorded_load(tree: Path, tmp_path: Path) -> None:
    with (tmp_path / "desk.csv").open("w") as file:
        make_trace("near-idle", 1).write(file)
    said = migrate(str(tree / "db.py"), "--check", str(tmp_path / "desk.csv"))
    assert "now " in said
    assert "with geventpool" in said


def test_a_path_that_is_not_there_and_a_tree_without_pools_are_told(tmp_path: Path) -> None:
    assert "no such file" in migrate(str(tmp_path / "nowhere"), code=1)
    (tmp_path / "a.py").write_text("print('hello')\n")
    assert "nothing is to be changed" in migrate(str(tmp_path))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (URL, f"{URL}?plugin=geventpool"),
        (f"{URL}?sslmode=require", f"{URL}?plugin=geventpool&sslmode=require"),
        (
            f"{URL}?pool_size=5&pool_recycle=60",
            f"{URL}?plugin=geventpool&geventpool_pool_size=5&geventpool_recycle=60",
        ),
        (f"{URL}?plugin=geventpool", f"{URL}?plugin=geventpool"),
    ],
)
def test_a_url_gets_the_plugin(before: str, after: str) -> None:
    assert url_after(before) == after
    if "plugin" not in before:
        assert type(create_engine(after).pool) is GeventPool
    assert "hunter2" not in migrate(before)


def test_nothing_of_a_source_is_run(tmp_path: Path) -> None:
    name = "migrate_must_not_import_me"
    (tmp_path / f"{name}.py").write_text(
        f"from sqlalchemy import create_engine\n1 / 0\nengine = create_engine({URL!r})\n"
    )
    assert "poolclass=GeventPool" in migrate(str(tmp_path))
    assert name not in sys.modules
