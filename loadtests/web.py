"""A locustfile: requests to a web server, yours or the example's.

python -m locust -f loadtests/web.py --host http://127.0.0.1:8000 --path / --path 3:/orders
"""

from __future__ import annotations

import re
from typing import Any

import gevent
from locust import FastHttpUser, task

from loadtests.load import Load, recorder_of
from loadtests.paths import parse_path
from loadtests.users import Paced

__all__ = ["Load", "WebUser"]

LARGEST = 100
"""`{}` in a path is a number from 1 to this."""


def _paths(given: list[str] | str | None) -> list[str]:
    """Those of the command line, or what somebody has typed into locust's page, with spaces between."""
    if isinstance(given, str):
        given = given.split()
    return [one for one in given or () if one] or ["/"]


class WebUser(Paced, FastHttpUser):
    """Asks for the paths that `--path` names, as often as their weights say."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        weighted = [parse_path(one) for one in _paths(environment.parsed_options.path)]
        self._weights, self._paths = zip(*weighted, strict=True)

    @task
    def get(self) -> None:
        """One request, on an HTTP connection of its own: so all workers get their share."""
        (pattern,) = self.random.choices(self._paths, self._weights)
        path = re.sub(r"\{\}", lambda _: str(self.random.randint(1, LARGEST)), pattern)
        recorder = recorder_of(self.environment)
        assert recorder is not None
        recorder.in_flight += 1
        try:
            # The client counts a time-out as a failed request, as it does whatever else goes wrong.
            with gevent.Timeout(self.environment.parsed_options.give_up or None):
                self.client.get(path, name=pattern, headers={"Connection": "close"})
        finally:
            recorder.in_flight -= 1
