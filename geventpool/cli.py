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
    "advise": ("geventpool.advise.command", "Say how many connections a load needs."),
    "doctor": ("geventpool.doctor.command", "Say what is wrong with a system, and the cure."),
    "migrate": (
        "geventpool.migrate.command",
        "Show what would change in a program that uses another pool.",
    ),
    "dashboard": ("geventpool.dashboard.command", "Serve a page with all pools, live."),
    "fleet": ("geventpool.fleet.command", "Show who has how many of a fleet's connections."),
    "record": ("geventpool.recorder.command", "Run a program and write the load of its pools."),
    "simulate": (
        "geventpool.simulator.command",
        "Replay a load in virtual time, through many pools.",
    ),
    "trace": ("geventpool.simulator.command", "Make a trace of a family of loads, as CSV."),
    "top": ("geventpool.observe.top", "Show pools, holders, slow queries and blocked hubs."),
}
"""Where each command is: a module with its name in it; and what it does, for the help of all."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(COMMANDS[cmd_name][0])
        except ImportError as error:
            problem = (
                f"{cmd_name} needs {error.name}: pip install 'geventpool[cli,plots,dashboard]'"
            )
            raise click.ClickException(problem) from None
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # without what the commands themselves need
            formatter.write_dl([(name, told) for name, (_, told) in COMMANDS.items()])

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
