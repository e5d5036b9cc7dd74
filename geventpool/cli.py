"""The `geventpool` command. Its parts are imported when they are called for, so that help is quick."""

from __future__ import annotations

import importlib
from typing import Any, Final

from .errors import GeventPoolError

try:
    import click
except ImportError:
    raise SystemExit(
        "The geventpool command needs click and rich: pip install 'geventpool[cli]'"
    ) from None

COMMANDS: Final = {
    "record": ("geventpool.recorder.command", "record"),
    "simulate": ("geventpool.simulator.command", "simulate"),
    "trace": ("geventpool.simulator.command", "trace"),
    "top": ("geventpool.observe.top", "top"),
}
"""Where each command is: a module and a name in it."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ImportError as error:
            problem = f"{cmd_name} needs {error.name}: pip install 'geventpool[cli,plots]'"
            raise click.ClickException(problem) from None
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GeventPoolError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="geventpool")
def main() -> None:
    """Look at connection pools, and try out what they would do."""


if __name__ == "__main__":
    main()
