"""The load of every locustfile here: its options, its shape over time, the record of what happened.

A locustfile of your own needs one line, `from loadtests.load import Load`, beside its users.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from locust import LoadTestShape, events
from locust.env import Environment
from sqlalchemy import Engine

from loadtests import pools
from loadtests.recorder import Recorder
from loadtests.shapes import SHAPES
from loadtests.turn import Plan
from loadtests.work import make_table

__all__ = ["Load"]

AT_ONCE = 100  # users that locust starts without a pause, and without a warning
DEFAULT = Plan()


class Load(LoadTestShape):
    """The shape that `--shape` names, `--peak` users high, compressed into `--seconds`."""

    def tick(self) -> tuple[int, float] | None:
        """How many users there are now; locust asks once a second."""
        assert self.runner is not None
        environment = self.runner.environment
        settings: Any = environment.parsed_options
        recorder = recorder_of(environment)
        at = 0.0 if recorder is None else recorder.now()
        if at >= settings.seconds:
            return None
        shape = SHAPES[settings.shape]
        return shape.users(at, settings.seconds, settings.peak, settings.seed), AT_ONCE


def recorder_of(environment: Environment) -> Recorder | None:
    """The record of the test that runs."""
    return getattr(environment, "loadtest_recorder", None)


def engine_of(environment: Environment) -> Engine:
    """The engine of the test that runs, with the pool that `--pool` names."""
    engine: Engine | None = getattr(environment, "loadtest_engine", None)
    if engine is None:
        raise RuntimeError("there is no engine: name the database with --url")
    return engine


@events.init_command_line_parser.add_listener
def add_options(parser: argparse.ArgumentParser) -> None:
    """Locust's command line and web page get these, too."""
    add: Any = parser.add_argument  # not of a group: those know nothing of the web page
    shapes = ", ".join(f"{shape.name}: {shape.about}" for shape in SHAPES.values())
    add(
        "--shape", choices=list(SHAPES), default=DEFAULT.shape, help=f"the load over time. {shapes}"
    )
    add("--seconds", type=float, default=DEFAULT.seconds, help="it is compressed into so many")
    add("--peak", type=int, default=DEFAULT.peak, help="users at the shape's highest")
    add("--rate", type=float, default=DEFAULT.rate, help="requests a second of each user")
    # Not None by default: the page sends all fields, and what has no type comes back as text.
    add("--give-up", type=float, default=0.0, help="seconds a user waits at most; 0: for ever")
    add("--seed", type=int, default=DEFAULT.seed, help="of all that is random")
    add("--pool", default="geventpool", help=f"one of {', '.join(pools.VARIANTS)}, or NAME=JSON")
    add("--url", default="", help="SQLAlchemy's URL of the database", is_secret=True)
    add("--path", action="append", help="for web users: a path, or WEIGHT:PATH; {} is a number")
    add("--figures", type=Path, help="write what happened to this file", include_in_web_ui=False)


@events.test_start.add_listener
def begin(environment: Environment, **_more: object) -> None:
    """Make the engine, and its table, before there are users."""
    settings: Any = environment.parsed_options
    engine = None
    if settings.url:
        make_table(settings.url)
        engine = pools.parse(settings.pool).create_engine(settings.url)
        environment.loadtest_engine = engine  # type: ignore[attr-defined]
    recorder = Recorder(environment, engine)
    environment.loadtest_recorder = recorder  # type: ignore[attr-defined]
    recorder.announce(settings.figures)


@events.test_stop.add_listener
def end(environment: Environment, **_more: object) -> None:
    """Write the record; the next test on locust's web page has an engine of its own."""
    settings: Any = environment.parsed_options
    recorder = recorder_of(environment)
    if recorder is not None:
        recorder.write(settings.figures)
        del environment.loadtest_recorder  # type: ignore[attr-defined]
    engine = getattr(environment, "loadtest_engine", None)
    if engine is not None:
        engine.dispose()
        del environment.loadtest_engine  # type: ignore[attr-defined]
