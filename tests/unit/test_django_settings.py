"""What `DATABASES[alias]["POOL"]` may say."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from geventpool import PROFILES, ConfigError, PoolConfig
from geventpool.config import make_config
from geventpool.django.settings import PoolSettings, read


def config_of(pool: Any) -> PoolConfig:
    return make_config(**read("default", {"POOL": pool}).given)


def read_pool(pool: Any, **more: Any) -> PoolSettings:
    return read("default", {"POOL": pool, **more})


@pytest.mark.parametrize("pool", [None, True, {}])
def test_nothing_need_be_said(pool: Any) -> None:
    assert config_of(pool) == PoolConfig()
    assert read("default", {}).given == {}


def test_our_own_names_are_taken() -> None:
    config = config_of({"max_size": 7, "min_idle": 2, "timeout": 1.5})
    assert (config.max_size, config.min_idle, config.timeout) == (7, 2, 1.5)


@pytest.mark.parametrize("name", PROFILES)
def test_our_own_profiles_can_be_named(name: str) -> None:
    assert config_of(name) == make_config(profile=name)


def test_slow_and_safe_pings_and_always_rolls_back() -> None:
    settings = read_pool("slow_and_safe")
    config = make_config(**settings.given)
    assert settings.pings
    assert (config.max_size, config.timeout, config.recycle) == (5, 30, 120)
    assert config.reset_on_return == "rollback"


def test_fast_and_sane_rolls_back_when_needed() -> None:
    settings = read_pool("fast_and_sane")
    config = make_config(**settings.given)
    assert not settings.pings
    assert (config.max_size, config.timeout, config.recycle) == (15, 30, 3600)
    assert config.reset_on_return == "smart"


def test_fast_and_wild_grows_late_and_shrinks_in_steps() -> None:
    config = config_of("fast_and_wild")
    assert (config.max_size, config.recycle, config.sizing) == (30, 3600, "fixed")
    assert (config.core_size, config.unload_timeout) == (5, 2)
    assert (config.retire_interval, config.retire_quantity) == (5, 1)
    assert config.reset_on_return == "smart"


def test_what_is_said_beside_a_profile_wins() -> None:
    config = config_of({"profile": "fast_and_wild", "max_size": 9, "core_size": 3, "timeout": 1})
    assert (config.max_size, config.core_size, config.timeout) == (9, 3, 1)
    assert config_of({"profile": "fast_and_sane", "reset_on_return": "commit"}).reset_on_return == (
        "commit"
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "smart"),
        ({"django_reset_on_return": True}, "smart"),
        ({"django_reset_on_return": True, "reset_on_return": None}, "smart"),
        ({"django_reset_on_return": False}, "rollback"),
        ({"django_reset_on_return": False, "reset_on_return": None}, None),
        ({"django_reset_on_return": False, "reset_on_return": "rollback"}, "rollback"),
        ({"django_reset_on_return": True, "reset_on_return": "commit"}, "commit"),
        ({"reset_on_return": None}, None),
    ],
)
def test_the_ancestors_two_resets_are_one_here(said: Any, expected: str | None) -> None:
    assert config_of(said).reset_on_return == expected


def test_what_the_ancestors_users_have_written_works_as_it_is() -> None:
    config = config_of(
        {
            "django_pre_ping": False,
            "django_reset_on_return": True,
            "django_core_pool_size": 5,
            "django_unload_timeout": 2,
            "django_retire_interval": 5,
            "django_retire_quantity": 1,
            "pool_size": 30,
            "max_overflow": 0,
            "timeout": 30,
            "recycle": 3600,
            "dialect": None,
            "pre_ping": False,
            "use_threadlocal": True,
            "reset_on_return": None,
        }
    )
    assert config == config_of("fast_and_wild")


def test_functions_are_read_anew_at_each_use() -> None:
    sizes = iter([3, 4])
    pool = {"pool_size": lambda: next(sizes), "max_overflow": lambda: 1}
    first = read_pool(pool)
    assert first.is_dynamic
    assert make_config(**first.given).max_size == 4
    assert make_config(**read_pool(pool).given).max_size == 5
    assert not read_pool("fast_and_wild").is_dynamic


def test_functions_of_the_sizing_are_left_to_the_policy() -> None:
    def core() -> int:
        return 3

    settings = read_pool({"django_core_pool_size": core, "unload_timeout": lambda: 0.5})
    assert not settings.is_dynamic
    assert make_config(**settings.given).core_size is core


@pytest.mark.parametrize(
    ("pool", "told"),
    [
        ({"max_sizes": 3}, "did you mean max_size"),
        ({"django_core_size": 3}, "did you mean django_core_pool_size"),
        ({"max_size": 0}, "['max_size']"),
        ({"profile": "fast_and_vild"}, "did you mean fast_and_wild"),
        ("fast_and_vild", "fast_and_wild"),
        (5, "give a dict"),
        ({"dialect": object()}, "leave it out"),
        ({"django_pool_class": "QueuePool"}, "the ENGINE has its pool"),
        ({"django_pre_ping": "yes"}, "True or False"),
        ({"use_threadlocal": 1}, "True or False"),
        ({"core_size": 3, "django_core_pool_size": 3}, "give one of them"),
        ({"django_unload_timeout": "2"}, "unload_timeout"),
        ({"pool_size": lambda: "many"}, "give a number"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_cure(pool: Any, told: str) -> None:
    with pytest.raises(ImproperlyConfigured) as raised:
        read_pool(pool)
    assert isinstance(raised.value, ConfigError)
    assert "DATABASES['default']['POOL']" in str(raised.value)
    assert told in str(raised.value)


@pytest.mark.parametrize("more", [{}, {"POOL": {"max_size": 3}}])
def test_djangos_own_pool_beside_ours_is_refused(more: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="remove the option"):
        read("default", {"OPTIONS": {"pool": True}, **more})
    assert read("default", {"OPTIONS": {"pool": False}}).given == {}


def test_a_function_for_errors_is_not_called_but_kept() -> None:
    asked: list[BaseException] = []
    settings = read_pool({"is_disconnect": asked.append})
    assert settings.given["is_disconnect"] == asked.append
    assert not settings.is_dynamic
    with pytest.raises(ImproperlyConfigured, match=r"'is_disconnect'.*give a function"):
        read_pool({"is_disconnect": "1290"})
