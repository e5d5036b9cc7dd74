"""`manage.py geventpool status|top|doctor`: the settings of the pools, and what the servers say."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from geventpool.config import PoolConfig, make_config
from geventpool.django.checks import pooled_case
from geventpool.django.settings import read
from geventpool.doctor import examine
from geventpool.doctor.server import ACTIVE, IDLE, IN_TRANSACTION, Server
from geventpool.doctor.sources.django import is_ours, look
from geventpool.doctor.sources.snapshots import read_published
from geventpool.doctor.symptoms import symptom_of
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
        parser.add_argument("--symptom", help="of doctor: an error's text; its checks come first")
        parser.add_argument("--json", action="store_true", help="of doctor: for programs")

    def handle(self, *, what: str, database: str | None, interval: float, **options: Any) -> None:
        """Runs it.

        Raises:
            CommandError: there is no such alias, or none has a pool.
            SystemExit: of doctor: 0, 1 if something is worth a look, 2 if something is wrong.
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
            self._examine(chosen if database else None, options["symptom"], options["json"])
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
            server = look(alias)
        except (DatabaseError, PoolTimeout) as error:
            told = str(error).partition("\n")[0]
            return [alias, *_settings(config), "-", "-", "-", "-", told]
        return [alias, *_settings(config), *_figures(alias, server)]

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

    def _examine(self, aliases: list[str] | None, symptom: str | None, is_json: bool) -> None:
        try:
            from rich.console import Console

            from geventpool.doctor.tell import as_json, exit_code, tell
        except ImportError as error:
            raise CommandError(
                f"doctor needs {error.name}: pip install 'geventpool[cli]'"
            ) from None
        try:
            case = pooled_case(aliases)
            case.snapshots, case.blind = read_published(None, None)
            chosen = None if symptom is None else symptom_of(symptom)
        except ConfigError as error:
            raise CommandError(str(error)) from None
        findings = examine(case, symptom=chosen)
        if is_json:
            self.stdout.write(as_json(findings))
        else:
            tell(Console(file=self.stdout._out, highlight=False), findings)
        sys.exit(exit_code(findings))


def _settings(config: PoolConfig) -> list[str]:
    recycle = "never" if config.recycle == -1 else f"{config.recycle:g} s"
    timeout = "none" if config.timeout is None else f"{config.timeout:g} s"
    return [f"{config.max_size:g}", str(config.sizing), timeout, recycle]


def _figures(alias: str, server: Server) -> list[str]:
    database = str(connections[alias].settings_dict["NAME"])
    ours = sum(one.database == database for one in server.sessions)
    states = (server.count(state, database) for state in (ACTIVE, IDLE, IN_TRANSACTION))
    most = server.number("max_connections")
    return [*map(str, (ours, *states)), f"{len(server.sessions)} of {most:g}"]
