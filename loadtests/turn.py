"""One turn: a locust process that puts a load on one pool, watched from here."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .server_view import ServerView, Watch

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
START_SECONDS = 60.0
STOP_SECONDS = 60.0


class LoadTestError(Exception):
    """A load test cannot go on; the text says why."""


@dataclass(frozen=True)
class Plan:
    """The load, which is the same for each pool.

    Attributes:
        shape: its name.
        seconds: how long it takes.
        peak: users at its highest.
        rate: requests a second of each user.
        seed: of all that is random.
        give_up: seconds after which a user waits no longer.
        locustfile: what the users do.
        fault: what happens in the middle, if anything.
        fault_seconds: for how long, where that can be chosen.
    """

    shape: str = "day"
    seconds: float = 40.0
    peak: int = 100
    rate: float = 2.0
    seed: int = 1
    give_up: float | None = None
    locustfile: str = str(HERE / "shop.py")
    fault: str | None = None
    fault_seconds: float = 3.0

    def arguments(self) -> list[str]:
        """Of locust's command line."""
        told = ["-f", self.locustfile, "--shape", self.shape, "--seconds", str(self.seconds)]
        told += ["--peak", str(self.peak), "--rate", str(self.rate), "--seed", str(self.seed)]
        return told + (["--give-up", str(self.give_up)] if self.give_up is not None else [])


@dataclass
class Turn:
    """What happened in one turn. Times are seconds since the load began.

    Attributes:
        title: the pool.
        round: the number of the turn of this pool.
        plan: the load.
        ended: when the last user was gone.
        requests: of each its end, kind, seconds, seconds beyond its queries' own time, and error.
        samples: users, transactions in flight, connections held, level (-1: the pool has none).
        opens: when connections were opened, as the client counts.
        server: connections, as the server counts.
        counters: what the server counted in this turn.
        fault: when it began and ended.
    """

    title: str
    round: int
    plan: dict[str, Any]
    ended: float
    requests: list[list[Any]]
    samples: list[list[float]]
    opens: list[float]
    server: list[list[float]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    fault: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Turn:
        """From a file."""
        return cls(**saved)


Happen = Callable[[], None]
"""Does a fault, from its begin to its end."""


def take(
    title: str,
    number: int,
    plan: Plan,
    arguments: list[str],
    server_url: str | None,
    happen: Happen | None = None,
) -> Turn:
    """Run locust once.

    Args:
        title: the pool's.
        number: of the round.
        plan: the load.
        arguments: more of locust's command line.
        server_url: whose connections to watch.
        happen: the fault in the middle.

    Raises:
        LoadTestError: locust did not come to its end.
    """
    with tempfile.TemporaryDirectory(prefix="geventpool-load-") as folder:
        file = Path(folder, "figures.json")
        command = [sys.executable, "-m", "locust", "--headless", "--loglevel", "ERROR"]
        command += ["--only-summary", "--stop-timeout", "20", "--exit-code-on-error", "0"]
        command += ["--figures", str(file), *plan.arguments(), *arguments]
        with _observing(server_url) as observed, _locust(command, Path(folder, "log")) as locust:
            began = _wait_for_start(locust, file, Path(folder, "log"))
            fault = _middle(plan, began, locust, happen)
            _wait_for_end(locust, plan, Path(folder, "log"))
        record = json.loads(file.read_text())
    return Turn(
        title,
        number,
        asdict(plan),
        record["ended"],
        record["requests"],
        record["samples"],
        record["opens"],
        observed.since(began, record["ended"]),
        observed.counted,
        fault,
    )


def look_for(address: str) -> None:
    """See that somebody is there, whatever it answers.

    Raises:
        LoadTestError: nobody is, or it is no web address.
    """
    if not address.startswith(("http://", "https://")):
        raise LoadTestError(f"{address!r}: give an address that begins with http:// or https://")
    try:
        with urllib.request.urlopen(address, timeout=START_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # it has answered
    except (OSError, http.client.HTTPException) as error:
        raise LoadTestError(f"no answer from {address}: {error}") from error


@dataclass
class _Observed:
    samples: list[tuple[float, int]] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)

    def since(self, began: float, ended: float) -> list[list[float]]:
        return [[at - began, count] for at, count in self.samples if 0 <= at - began <= ended]


@contextmanager
def _observing(url: str | None) -> Iterator[_Observed]:
    observed = _Observed()
    if url is None:
        yield observed
        return
    with ServerView(url) as view:
        before = view.counters()
    with Watch(url).running() as watch:
        yield observed
    with ServerView(url) as view:
        after = view.counters()
    observed.samples = watch.samples
    # A server that was restarted counts from 0 again.
    observed.counted = {
        name: count - before[name] if count >= before[name] else count
        for name, count in after.items()
    }


@contextmanager
def _locust(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _wait_for_start(process: subprocess.Popen[bytes], file: Path, log: Path) -> float:
    """When the load began, on the monotonic clock."""
    started = file.with_suffix(".started")
    deadline = time.monotonic() + START_SECONDS
    while not started.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise LoadTestError(f"locust did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.02)
    return float(started.read_text())


def _middle(
    plan: Plan, began: float, process: subprocess.Popen[bytes], happen: Happen | None
) -> list[float]:
    if happen is None:
        return []
    try:
        process.wait(max(0.0, began + 0.4 * plan.seconds - time.monotonic()))
    except subprocess.TimeoutExpired:
        start = time.monotonic() - began
        happen()
        return [start, time.monotonic() - began]
    return []  # it has ended; why, is said by whoever waits for that


def _wait_for_end(process: subprocess.Popen[bytes], plan: Plan, log: Path) -> None:
    try:
        code = process.wait(plan.seconds + STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise LoadTestError(f"locust does not end:\n{log.read_text()[-3000:]}") from None
    if code != 0:
        raise LoadTestError(f"locust ended with code {code}:\n{log.read_text()[-3000:]}")
