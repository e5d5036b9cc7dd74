"""`manage.py geventpool status|top|doctor`: the settings of the pools, and what the servers say."""

from __future__ import annotations

import os
import time
from typing import Any

from django.core import checks
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from geventpool.config import PoolConfig, make_config
from geventpool.django.checks import check_server, check_settings, is_ours
from geventpool.django.server import ServerView, look
from geventpool.django.settings import read
from geventpool.errors import ConfigError, PoolTimeout
from geventpool.observe.interrupt import hear_ctrl_c

_COLUMNS = (
    "alias",
    "max",
    "sizing",
    "timeout",
    "recycle",
    "open",
    "active",
    "idle",
    "in transaction",
    "server",
)


class Command(BaseCommand):
    """This process's settings, and all processes' connections as the server counts them."""

    help = "shows the pools' settings and what the database servers say of their connections"

    def add_arguments(self, parser: Any) -> None:
        """What the command line takes."""
        parser.add_argument("what", choices=["status", "top", "doctor"])
        parser.add_argument("--database", help="only this alias")
        parser.add_argument("--interval", type=float, default=2.0, help="seconds, of top")
        parser.add_argument("--count", type=int, help="looks, of top; without it until Ctrl-C")

    def handle(self, *, what: str, database: str | None, interval: float, **options: Any) -> None:
        """Runs it.

        Raises:
            CommandError: there is no such alias, none has a pool, or something is wrong.
        """
        aliases = [alias for alias in connections if is_ours(alias)]
        if database is not None and database not in aliases:
            raise CommandError(f"{database!r} is no alias with a pool; there are {aliases}")
        if not aliases:
            raise CommandError("no alias has a pool: ENGINE = 'geventpool.django.…'")
        chosen = aliases if database is None else [database]
        if not 0 <= interval <= 3600:
            raise CommandError(f"--interval {interval}: give a number of seconds, up to 3600")
        if what == "doctor":
            self._examine(chosen)
            return
        looks = 1 if what == "status" else options["count"]
        try:
            if what == "top":
                hear_ctrl_c()
            while True:
                self._table([self._line(alias) for alias in chosen])
                if what == "top":
                    self._holders_and_queries()
                looks = None if looks is None else looks - 1
                if looks is not None and looks <= 0:
                    return
                time.sleep(interval)
        except KeyboardInterrupt:
            return

    def _line(self, alias: str) -> list[str]:
        try:
            config = make_config(**read(alias, connections.settings[alias]).given)
        except ConfigError as error:
            raise CommandError(str(error)) from None
        try:
            view = look(connections[alias])
        except (DatabaseError, PoolTimeout) as error:
            told = str(error).partition("\n")[0]
            return [alias, *_settings(config), "-", "-", "-", "-", told]
        return [alias, *_settings(config), *_figures(view)]

    def _table(self, lines: list[list[str]]) -> None:
        rows = [list(_COLUMNS), *lines]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())

    def _holders_and_queries(self) -> None:
        """What the processes publish whose pools are observed; nothing if none does."""
        try:
            from rich.console import Console

            from geventpool.observe.files import read_snapshots
            from geventpool.observe.top import Screen
        except ImportError:
            return
        others = [said for said in read_snapshots() if said["pid"] != os.getpid()]
        if others:
            Console(file=self.stdout._out, highlight=False).print(Screen().render(others))

    def _examine(self, aliases: list[str]) -> None:
        problems = check_settings(None) + check_server(None, databases=aliases)
        for alias in aliases:
            began = time.perf_counter()
            try:
                view = look(connections[alias])
            except (DatabaseError, PoolTimeout, ConfigError) as error:
                problems.append(checks.Error(f"{alias}: {error}", id="geventpool.E003"))
                continue
            milliseconds = (time.perf_counter() - began) * 1000
            self.stdout.write(
                f"{alias}: answers in {milliseconds:.0f} ms, connecting included; "
                f"{view.connections} of {view.max_connections} connections are open"
            )
        for problem in problems:
            self.stdout.write(str(problem))
        if any(problem.level >= checks.ERROR for problem in problems):
            raise CommandError("something is wrong")
        if not problems:
            self.stdout.write("nothing is wrong")


def _settings(config: PoolConfig) -> list[str]:
    recycle = "never" if config.recycle == -1 else f"{config.recycle:g} s"
    timeout = "none" if config.timeout is None else f"{config.timeout:g} s"
    return [f"{config.max_size:g}", str(config.sizing), timeout, recycle]


def _figures(view: ServerView) -> list[str]:
    ours = (view.ours, view.active, view.idle, view.in_transaction)
    return [*map(str, ours), f"{view.connections} of {view.max_connections}"]
