"""What goes wrong in the middle of a run, on request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .server_view import ServerView

SLOW_SECONDS = 0.5


class Link(Protocol):
    """What is between the pools and the server: `tests.integration.proxy.Proxy`."""

    def delay_connects(self, seconds: float) -> None:
        """Hold up what comes on new connections for so long."""

    def refuse(self) -> None:
        """New connects are refused."""

    def accept(self) -> None:
        """They no longer are."""


@dataclass(frozen=True)
class Place:
    """Where it goes wrong.

    Attributes:
        url: of the server, past the link.
        server: that can be restarted; `None` if it is not ours.
        link: what the pools connect through; `None`: nothing.
        seconds: for how long, where that can be chosen.
    """

    url: str
    server: Any
    link: Link | None
    seconds: float


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        name: for `--fault`.
        about: for people.
        happen: from its begin to its end.
        needs_link: the pools have to connect through a proxy.
        needs_server: only a server of ours will do.
    """

    name: str
    about: str
    happen: Callable[[Place], None]
    needs_link: bool = False
    needs_server: bool = False


def _restart(place: Place) -> None:
    place.server.restart()


def _kill_idle(place: Place) -> None:
    with ServerView(place.url) as view:
        view.kill_idle()


def _slow_connect(place: Place) -> None:
    assert place.link is not None
    place.link.delay_connects(SLOW_SECONDS)
    time.sleep(place.seconds)
    place.link.delay_connects(0)


def _refuse(place: Place) -> None:
    assert place.link is not None
    place.link.refuse()
    time.sleep(place.seconds)
    place.link.accept()


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("restart", "the server is stopped and started", _restart, needs_server=True),
        Fault("kill-idle", "the server ends all idle connections at once", _kill_idle),
        Fault(
            "slow-connect",
            f"a connect takes {SLOW_SECONDS:g} s more",
            _slow_connect,
            needs_link=True,
        ),
        Fault("refuse", "new connects are refused, old ones go on", _refuse, needs_link=True),
    )
}
