"""System checks: what `geventpool doctor` finds, as far as Django asks for it; its ids for that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.core.checks import CheckMessage, Error, Warning

from geventpool.doctor import CHECKS, Case, Finding, Judgement, Level, examine
from geventpool.doctor.sources.django import process_of_django, targets_of_django
from geventpool.doctor.sources.gunicorn import read_deployment

_SETTINGS = {
    "settings.usable": "E001",
    "process.django_shared": "E002",
    "settings.pool": "W001",
    "settings.conn_max_age": "W002",
    "driver.cooperative": "W003",
}
"""Checks that need no server, and their ids."""

_ROOM = "server.max_connections"


def pooled_case(aliases: Iterable[str] | None = None) -> Case:
    """The aliases that have a pool of ours, or settings for one. Never connects.

    Args:
        aliases: of these only; `None`: all.
    """
    found = [
        target
        for target in targets_of_django(aliases)
        if target.is_ours or target.given["has_ignored_pool"]
    ]
    return Case(process_of_django(), found, read_deployment(None, None, 1))


def check_settings(app_configs: object, **_: object) -> list[CheckMessage]:
    """What can be seen without a server."""
    case = pooled_case()
    if not any(target.is_ours for target in case.targets):
        case.process = type(case.process)()  # it is nobody's concern then
    return _messages(examine(case, _SETTINGS.keys()))


def check_server(
    app_configs: object, databases: Sequence[str] | None = None, **_: object
) -> list[CheckMessage]:
    """What only the servers know: `manage.py check --database default`, and every `migrate`."""
    case = pooled_case()
    asked = {
        one.address[:2]: one
        for one in case.targets
        if one.is_ours and one.name in (databases or ())
    }
    found = []
    for target in asked.values():
        server = case.look_at(target)
        if server.error is not None:
            continue  # Django tells it better
        said: Judgement | None = CHECKS[_ROOM].judge(case, (target, server))
        if said is not None:
            found.append(Finding(_ROOM, target.name, said))
    return _messages(found)


def _messages(findings: Iterable[Finding]) -> list[CheckMessage]:
    return [_message(one) for one in findings if one.level in (Level.LOOK, Level.WRONG)]


def _message(finding: Finding) -> CheckMessage:
    it, number = finding.judgement, _SETTINGS.get(finding.check, "W005")
    about = f"{finding.about}: " if finding.about else ""
    kind = Error if number.startswith("E") else Warning
    return kind(f"{about}{it.measured}: {it.why}.", hint=it.cure, id=f"geventpool.{number}")
