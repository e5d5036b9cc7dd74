"""The command `geventpool`. A subcommand's module is imported when it is called."""

from __future__ import annotations

import importlib

import click

_COMMANDS = {"top": ("geventpool.observe.top", "top")}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Lazy)
def main() -> None:
    """Tools for geventpool, the database connection pool for gevent servers."""


if __name__ == "__main__":
    main()
