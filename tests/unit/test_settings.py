"""A setting is declared once, as a field of `PoolConfig`: every way to a pool takes it, and shows it."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import get_cls_kwargs

import geventpool
import geventpool.flask
from geventpool import ConfigError, ConnectionPool, PoolConfig
from geventpool.config import SETTINGS, make_config
from geventpool.django.settings import read
from geventpool.sqlalchemy import GeventPool, wrap
from geventpool.testing import FakeDriver
from tools import docs_tables

ROOT = Path(__file__).parents[2]
VALUES = (7, False, "testing", "fixed", "commit", "host", True, str.isdigit)
"""For each setting the first of them that it takes, and that is not its default."""


def shown(config: PoolConfig, name: str) -> Any:
    return getattr(config, name, config.max_size)


def value_of(name: str) -> Any:
    for value in VALUES:
        try:
            config = make_config(**{name: value})
        except ConfigError:
            continue
        if shown(config, name) != shown(PoolConfig(), name):
            return value
    raise AssertionError(f"VALUES has none for {name}")


def by_argument(name: str, value: Any, url: str) -> PoolConfig:
    return GeventPool(FakeDriver().connect, **{name: value}).recreate().config


def by_create_engine(name: str, value: Any, url: str) -> PoolConfig:
    is_theirs = name in get_cls_kwargs(QueuePool) - {"pool_size", "max_overflow"}
    keyword = f"pool_{name}" if is_theirs else name
    engine = create_engine(url, poolclass=GeventPool, **{keyword: value})
    return engine.pool.config  # type: ignore[attr-defined,no-any-return]


def by_url(name: str, value: Any, url: str) -> PoolConfig:
    value = shown(make_config(**{name: value}), name) if hasattr(PoolConfig, name) else value
    text = "none" if value is None else str(value)
    engine = create_engine(f"{url}?plugin=geventpool&geventpool_{name}={text}")
    return engine.pool.config  # type: ignore[attr-defined,no-any-return]


def by_wrap(name: str, value: Any, url: str) -> PoolConfig:
    return wrap(create_engine(url), **{name: value}).pool.config  # type: ignore[attr-defined,no-any-return]


def by_flask(url: str, config: dict[str, Any], **settings: Any) -> PoolConfig:
    app = Flask("settings")
    app.config |= {"SQLALCHEMY_DATABASE_URI": url, **config}
    db = SQLAlchemy(app)
    geventpool.flask.GeventPool(app, db, **settings)
    with app.app_context():
        return db.engine.pool.config  # type: ignore[no-any-return]


def by_django(name: str, value: Any, url: str) -> PoolConfig:
    return make_config(**read("default", {"POOL": {name: value}}).given)


def by_configure(name: str, value: Any, url: str) -> PoolConfig:
    pool = ConnectionPool(FakeDriver().connect)
    pool.configure(**{name: value})
    return pool.config


DOORS: dict[str, Callable[[str, Any, str], PoolConfig]] = {
    "GeventPool": by_argument,
    "create_engine": by_create_engine,
    "wrap": by_wrap,
    "Flask's configuration": lambda name, value, url: by_flask(
        url, {f"GEVENTPOOL_{name.upper()}": value}
    ),
    "Flask": lambda name, value, url: by_flask(url, {}, **{name: value}),
    "Django": by_django,
    "ConnectionPool": lambda name, value, url: (
        ConnectionPool(FakeDriver().connect, **{name: value}).config
    ),
}


def doors_of(name: str) -> dict[str, Callable[[str, Any, str], PoolConfig]]:
    doors = dict(DOORS)
    if SETTINGS[name].kind.parse is not None:
        doors["URL"] = by_url
    if not SETTINGS[name].is_final:
        doors["configure"] = by_configure
    return doors


def check_doors(name: str, folder: Path) -> None:
    value = value_of(name)
    expected = shown(make_config(**{name: value}), name)
    for door, made_by in doors_of(name).items():
        config = made_by(name, value, f"sqlite:///{folder}/settings.db")
        assert shown(config, name) == expected, door


@pytest.mark.parametrize("name", SETTINGS)
def test_every_door_takes_every_setting(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "fleet":  # which has no size by itself
        monkeypatch.setenv("GEVENTPOOL_FLEET_SIZE", "20")
    check_doors(name, tmp_path)


def test_every_door_takes_a_field_that_is_added_and_nothing_else(tmp_path: Path) -> None:
    package = tmp_path / "geventpool"
    shutil.copytree(
        ROOT / "geventpool", package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    config = package / "config.py"
    before, after = config.read_text().split("    def __post_init__", 1)
    field = '    extra: float = setting(3.0, "of a test", seconds("a number of seconds"))\n\n'
    config.write_text(f"{before}{field}    def __post_init__{after}")
    program = f"""
from pathlib import Path
import geventpool, inspect
from tests.unit.test_settings import GeventPool, check_doors
assert geventpool.__file__.startswith({str(tmp_path)!r})
check_doors("extra", Path({str(tmp_path)!r}))
assert inspect.signature(GeventPool).parameters["extra"].default == 3.0
assert "extra: of a test." in GeventPool.__doc__
"""
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        timeout=120,
    )


def test_a_setting_that_no_text_can_say_is_no_option_of_the_url(tmp_path: Path) -> None:
    (name,) = (name for name, one in SETTINGS.items() if one.kind.parse is None)
    with pytest.raises(ConfigError, match=f"geventpool_{name}=.*there is no such option") as caught:
        by_url(name, value_of(name), f"sqlite:///{tmp_path}/settings.db")
    assert "geventpool_max_size" in str(caught.value)


def test_create_engine_finds_all_arguments_also_those_of_a_subclass() -> None:
    class Plain(GeventPool):
        pass

    class WithOneMore(GeventPool):
        def __init__(self, creator: Any, more: int = 0, **settings: Any) -> None:
            super().__init__(creator, **settings)

    known = get_cls_kwargs(GeventPool)
    assert known == SETTINGS.keys() | get_cls_kwargs(QueuePool)
    assert get_cls_kwargs(Plain) == known
    assert get_cls_kwargs(WithOneMore) == {*known, "more"}


@pytest.mark.parametrize("door", [GeventPool, ConnectionPool, geventpool.flask.GeventPool])
def test_a_door_shows_each_setting_with_its_default_and_meaning(door: type) -> None:
    parameters = inspect.signature(door).parameters
    doc = " ".join((door.__doc__ or "").split())
    for name, setting in SETTINGS.items():
        assert parameters[name].default == setting.default
        assert f" {name}: {setting.meaning}. " in doc
    assert not any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def test_the_first_arguments_come_in_queue_pools_order() -> None:
    first = [*inspect.signature(QueuePool).parameters][:5]
    assert [*inspect.signature(GeventPool).parameters][:5] == first


def test_the_tables_of_the_docs_are_what_is_declared() -> None:
    for page in docs_tables.PAGES:
        assert page.read_text() == docs_tables.page_with(page.read_text())


def test_none_is_not_given_unless_it_is_a_value() -> None:
    for name, setting in SETTINGS.items():
        config = GeventPool(FakeDriver().connect, **{name: None}).config
        if not setting.kind.takes_none:
            assert config == PoolConfig(), name
    named = {"timeout": None, "use_lifo": None, "reset_on_return": None, "reclaim_after": None}
    config = GeventPool(FakeDriver().connect, **named).config
    assert config == PoolConfig(
        timeout=None, use_lifo=False, reset_on_return=None, reclaim_after=None
    )


def test_a_misspelt_argument_is_told_the_nearest_name_by_the_class_itself() -> None:
    with pytest.raises(ConfigError, match=r"pool_sise=5: .*did you mean pool_size"):
        GeventPool(FakeDriver().connect, pool_sise=5)


def test_a_pools_repr_has_the_figures() -> None:
    for pool in (GeventPool(FakeDriver().connect), ConnectionPool(FakeDriver().connect)):
        assert "(max 20, idle 0, in use 0, opening 0, waiting 0)" in repr(pool)
