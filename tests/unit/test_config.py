"""Settings: what they mean, and what a wrong one is told."""

from __future__ import annotations

import math
from typing import Any

import pytest

from geventpool import PROFILES, ConfigError, ConnectionPool
from geventpool.config import make_config
from geventpool.sizing import adaptive, fixed, poisson
from geventpool.testing import FakeDriver


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"max_size": 0}, "max_size"),
        ({"max_size": -3}, "max_size"),
        ({"max_size": "20"}, "max_size"),
        ({"max_size": True}, "max_size"),
        ({"max_size": 2.5}, "max_size"),
        ({"max_size": math.nan}, "max_size"),
        ({"max_size": 5, "pool_size": 5}, "max_size"),
        ({"pool_size": -10}, "pool_size"),
        ({"pool_size": "five"}, "pool_size"),
        ({"max_overflow": -5}, "max_overflow"),
        ({"min_idle": -1}, "min_idle"),
        ({"min_idle": None}, "min_idle"),
        ({"min_idle": 6, "max_size": 5}, "min_idle"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"recycle": "1h"}, "recycle"),
        ({"ping_after": -1}, "ping_after"),
        ({"ping_after": None}, "ping_after"),
        ({"cleaner": None}, "cleaner"),
        ({"sizing": "clever"}, "sizing"),
        ({"sizing": 5}, "sizing"),
        ({"breakeven": 0}, "breakeven"),
        ({"breakeven": -5}, "breakeven"),
        ({"breakeven": 5, "sizing": "fixed"}, "breakeven"),
        ({"breakeven": 5, "sizing": adaptive()}, "breakeven"),
        ({"reset_on_return": "maybe"}, "reset_on_return"),
        ({"reset_on_return": []}, "reset_on_return"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"connect_timeout": None}, "connect_timeout"),
        ({"cancel_deadline": -1}, "cancel_deadline"),
        ({"cancel_deadline": math.inf}, "cancel_deadline"),
        ({"cancel_deadline": "5"}, "cancel_deadline"),
        ({"reclaim_after": -1}, "reclaim_after"),
        ({"reclaim_after": True}, "reclaim_after"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"max_waiting": 2.5}, "max_waiting"),
        ({"shed_after": 0}, "shed_after"),
        ({"shed_after": "1"}, "shed_after"),
        ({"profile": "produktion"}, "profile"),
        ({"profile": 5}, "profile"),
        ({"pool_sise": 5}, "pool_sise"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_the_cure(
    settings: dict[str, Any], argument: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(**settings)
    error = caught.value
    assert error.argument == argument
    assert error.value is settings[argument]
    assert str(error).startswith(f"{argument}={settings[argument]!r}: ")
    assert len(error.cure) > 10


def test_a_misspelt_setting_is_told_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean min_idle"):
        make_config(min_idel=2)


def test_nothing_is_opened_by_a_pool_that_is_configured_wrongly() -> None:
    driver = FakeDriver()
    with pytest.raises(ConfigError):
        ConnectionPool(driver.connect, min_idle=-1)
    with pytest.raises(ConfigError, match="connect='nothing'"):
        ConnectionPool("nothing")  # type: ignore[arg-type]
    assert driver.attempts == 0


@pytest.mark.parametrize(
    ("settings", "cap"),
    [
        ({}, 20),
        ({"max_size": 7}, 7),
        ({"max_size": math.inf}, math.inf),
        ({"pool_size": 5}, 15),
        ({"pool_size": 5, "max_overflow": 0}, 5),
        ({"pool_size": 5, "max_overflow": -1}, math.inf),
        ({"pool_size": 0}, math.inf),
        ({"pool_size": 0, "max_overflow": 3}, math.inf),
        ({"max_overflow": 3}, 8),
        ({"profile": "production"}, 75),
        ({"profile": "production", "max_overflow": 0}, 50),
        ({"profile": "production", "max_size": 4}, 4),
        ({"sizing": fixed(max_size=9)}, 9),
    ],
)
def test_the_hard_cap_is_what_was_said_in_whatever_way(
    settings: dict[str, Any], cap: float
) -> None:
    assert make_config(**settings).max_size == cap


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_makes_a_valid_configuration(profile: str) -> None:
    said = PROFILES[profile]
    config = make_config(profile=profile)
    assert config.max_size == said["pool_size"] + said["max_overflow"]
    assert config.recycle == said["recycle"]
    assert config.timeout == said.get("timeout", 30)


def test_what_is_said_beside_a_profile_wins() -> None:
    config = make_config(profile="high_traffic", timeout=3, recycle=60)
    assert (config.timeout, config.recycle, config.max_size) == (3, 60, 150)


@pytest.mark.parametrize("sizing", ["adaptive", "poisson", "fixed", adaptive(), poisson(), fixed()])
def test_every_pool_gets_a_policy_of_its_own(sizing: Any) -> None:
    config = make_config(sizing=sizing)
    assert config.policy() is not config.policy()


def test_a_fixed_policy_brings_its_own_min_idle() -> None:
    assert make_config(sizing=fixed(min_idle=3, max_size=9)).min_idle == 3
    assert make_config(sizing=fixed(min_idle=3, max_size=9), min_idle=2).min_idle == 2


@pytest.mark.parametrize("timeout", ["soon", None, math.nan])
def test_a_drain_is_told_for_how_long(timeout: Any) -> None:
    pool = ConnectionPool(FakeDriver().connect)
    with pool.connection(), pytest.raises(ConfigError, match=r"timeout=.*: give a number"):
        pool.drain(timeout)
    assert pool.drain("0.5") is True


def test_settings_change_while_the_pool_runs_and_a_wrong_one_changes_nothing() -> None:
    pool = ConnectionPool(FakeDriver().connect, max_size=5, ping_after=10)
    pool.configure(max_size=8, min_idle=2, recycle=100)
    assert (pool.stats().max_size, pool.stats().min_idle) == (8, 2)
    assert (pool.config.ping_after, pool.core.config.lifetime) == (10, 100)
    before = pool.config
    with pytest.raises(ConfigError, match="min_idle=9"):
        pool.configure(min_idle=9, recycle=50)
    with pytest.raises(ConfigError, match="cleaner"):
        pool.configure(cleaner=False)
    assert pool.config is before
    pool.configure(pool_size=3, max_overflow=1)
    assert pool.stats().max_size == 4
