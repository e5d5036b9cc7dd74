"""What several of the unit tests need."""

from __future__ import annotations

import gc
import weakref
from importlib import import_module

import pytest

from geventpool.core import registry
from geventpool.testing import FakeClock, FakeDriver


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def driver(clock: FakeClock) -> FakeDriver:
    return FakeDriver(clock)


@pytest.fixture
def no_pools_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(registry, "_pools", weakref.WeakSet())
    monkeypatch.setattr(import_module("geventpool.observe.snapshot"), "_gone", {})
