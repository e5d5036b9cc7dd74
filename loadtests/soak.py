"""The example application under a load for long, to see that nothing grows."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from sqlalchemy.exc import SQLAlchemyError

from . import compare
from .pools import VARIANTS
from .server_view import ServerView
from .turn import HERE, Plan, Turn, take

PEAK = 30
WARM_UP = 1 / 6
"""Share of the time after which nothing may grow any more: 5 minutes of 30."""

MOST_MEMORY = 0.02
MOST_DESCRIPTORS = 2
MATCH_SECONDS = 3.0
"""How long the books may take to agree: a worker writes its own down four times a second."""


@dataclass(frozen=True)
class Sample:
    """How it is at a moment.

    Attributes:
        at: seconds since the start.
        memory: bytes of its own that each worker has in memory, by its number; without the files that
            it maps, which the system reads and drops as it likes.
        descriptors: files and sockets that it has open, beyond those of its pool's connections.
        held: connections, by the pools' own books.
        server: connections, by the server's.
        agreed_after: seconds until these two were equal; `None`: never.
    """

    at: float
    memory: dict[int, int]
    descriptors: dict[int, int]
    held: int
    server: int
    agreed_after: float | None


@dataclass
class Soak:
    """What was seen.

    Attributes:
        seconds: how long it took.
        requests: how many there were.
        errors: how many of them failed.
        missed: how many samples could not be taken.
        samples: in order.
    """

    seconds: float
    requests: int = 0
    errors: int = 0
    missed: int = 0
    samples: list[Sample] = field(default_factory=list)

    @property
    def later(self) -> list[Sample]:
        """The samples after the warm-up, while the load was on."""
        return [one for one in self.samples if one.at >= WARM_UP * self.seconds]

    def memory_range(self) -> dict[int, float]:
        """By how much of its median each worker's memory went up or down, at most."""
        return {
            pid: max(abs(value / statistics.median(values) - 1) for value in values)
            for pid, values in _by_worker([one.memory for one in self.later]).items()
        }

    def descriptor_drift(self) -> dict[int, float]:
        """The median of the second half, less that of the first."""
        drifts = {}
        for pid, values in _by_worker([one.descriptors for one in self.later]).items():
            half = len(values) // 2
            drifts[pid] = statistics.median(values[half:]) - statistics.median(values[:half])
        return drifts

    @property
    def replaced(self) -> int:
        """How often a worker was not the one that it was in the sample before."""
        return sum(len(set(new.memory) - set(old.memory)) for old, new in pairwise(self.samples))

    def checks(self) -> list[tuple[bool, str]]:
        """Whether each thing that must hold does, and the figures."""
        memory, drift = self.memory_range(), self.descriptor_drift()
        agreed = [one.agreed_after for one in self.samples]
        times = [seconds for seconds in agreed if seconds is not None]
        return [
            (
                self.errors == 0 < self.requests and not self.replaced,
                f"{self.errors} of {self.requests} requests failed, {self.replaced} workers ended",
            ),
            (
                max(memory.values(), default=1.0) <= MOST_MEMORY,
                "memory, away from its median: "
                + ", ".join(f"{share:.2%}" for share in memory.values())
                + f"; at most {MOST_MEMORY:.0%}",
            ),
            (
                max(map(abs, drift.values()), default=99.0) <= MOST_DESCRIPTORS,
                "descriptors beyond the pools', second half less first: "
                + ", ".join(f"{value:+g}" for value in drift.values())
                + f"; at most {MOST_DESCRIPTORS}",
            ),
            (
                bool(agreed) and len(times) == len(agreed) + self.missed,
                f"the server's connections were the pools' in {len(times)} of "
                f"{len(agreed) + self.missed} samples, "
                f"after {max(times, default=0):.2f} s at most",
            ),
        ]

    @property
    def holds(self) -> bool:
        """Does everything?"""
        return all(holds for holds, _ in self.checks())

    def lines(self) -> list[str]:
        """For people."""
        return [f"{'holds' if holds else 'DOES NOT HOLD'}: {text}" for holds, text in self.checks()]


def run(url: str, workers: int, seconds: float, output: Path, tell: Callable[[str], None]) -> Soak:
    """The order desk with geventpool under a load that goes up and down.

    Args:
        url: of the database.
        workers: gunicorn's.
        seconds: how long.
        output: the folder for `soak.json` and `soak.png`.
        tell: is told how it goes.

    Raises:
        LoadTestError: something has ended before its time.
    """
    found = Soak(seconds)
    plan = Plan(shape="soak", seconds=seconds, peak=PEAK, locustfile=str(HERE / "web.py"))
    with TemporaryDirectory(prefix="geventpool-load-") as name:
        folder = Path(name)
        with compare.desk(url, workers, VARIANTS["geventpool"], folder) as server:
            watch = _Watch(url, server.process.pid, folder, found, tell)
            with watch.running(max(1.0, seconds / 360)):
                turn = take("soak", 1, plan, compare.desk_arguments(server.url), None)
    found.requests = len(turn.requests)
    found.errors = sum(row[4] is not None for row in turn.requests)
    output.mkdir(parents=True, exist_ok=True)
    (output / "soak.json").write_text(json.dumps(asdict(found)))
    _draw(found, turn, output / "soak.png")
    tell(f"written: {output / 'soak.json'}, {output / 'soak.png'}")
    return found


class _Watch:
    """Takes the samples, in a thread of its own."""

    def __init__(
        self, url: str, parent: int, stats: Path, found: Soak, tell: Callable[[str], None]
    ) -> None:
        self._parent, self._stats, self._found, self._tell = parent, stats, found, tell
        self._view = ServerView(url)
        self._began = time.monotonic()
        self._stop = threading.Event()

    @contextmanager
    def running(self, interval: float) -> Iterator[None]:
        thread = threading.Thread(target=self._run, args=(interval,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            self._view.close()

    def _run(self, interval: float) -> None:
        told = self._began
        while not self._stop.wait(interval):
            try:
                sample = self._sample()
            except (OSError, SQLAlchemyError) as error:  # a worker has ended, or the server
                self._found.missed += 1
                self._tell(f"no sample: {error!r}")
                continue
            self._found.samples.append(sample)
            if time.monotonic() - told > 60:
                told = time.monotonic()
                mib = sum(sample.memory.values()) / 2**20
                self._tell(f"{sample.at:.0f} s: {mib:.0f} MiB, {sample.server} connections")

    def _sample(self) -> Sample:
        children = Path(f"/proc/{self._parent}/task/{self._parent}/children").read_text().split()
        pids = [int(child) for child in children]
        memory = {pid: _memory(pid) for pid in pids}
        sizes = self._sizes()
        descriptors = {pid: len(os.listdir(f"/proc/{pid}/fd")) - sizes.get(pid, 0) for pid in pids}
        began = time.monotonic()
        while True:
            before = sum(self._sizes().values())
            count = len(self._view.connections())
            held = sum(self._sizes().values())
            spent = time.monotonic() - began
            if before == count == held or spent > MATCH_SECONDS:
                agreed = spent if before == count == held else None
                return Sample(began - self._began, memory, descriptors, held, count, agreed)
            time.sleep(0.05)

    def _sizes(self) -> dict[int, int]:
        """The connections of each worker, by the books that it writes down."""
        from examples.demo_support.server import read_stats

        return {pid: int(one["size"]) for pid, one in read_stats(self._stats).items()}


def _memory(pid: int) -> int:
    """Bytes of anonymous memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "RssAnon":
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"{pid} has ended")


def _by_worker(samples: Sequence[dict[int, int]]) -> dict[int, list[int]]:
    """The values of each worker that was there all the time."""
    always = set.intersection(*(set(one) for one in samples)) if samples else set()
    return {pid: [one[pid] for one in samples] for pid in sorted(always)}


def _draw(found: Soak, turn: Turn, file: Path) -> None:
    figure, (memory, descriptors, connections) = pyplot.subplots(
        3, 1, sharex=True, figsize=(11, 8), layout="constrained"
    )
    at = [one.at for one in found.samples]
    for pid, values in _by_worker([one.memory for one in found.samples]).items():
        memory.plot(at, [value / 2**20 for value in values], label=f"worker {pid}")
    for values in _by_worker([one.descriptors for one in found.samples]).values():
        descriptors.plot(at, values)
    connections.plot(at, [one.server for one in found.samples], label="by the server", lw=3)
    connections.plot(at, [one.held for one in found.samples], label="by the pools", ls="--")
    demand = [row for row in turn.samples if row[0] <= found.seconds]
    connections.plot(
        [row[0] for row in demand], [row[2] for row in demand], lw=0.3, label="requests at once"
    )
    for axis, label in (
        (memory, "MiB of their own"),
        (descriptors, "other descriptors"),
        (connections, "connections"),
    ):
        axis.axvspan(0, WARM_UP * found.seconds, color="#f4ead7", lw=0)
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.15 * axis.get_ylim()[1])
        axis.grid(color="#dddddd", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    memory.legend(frameon=False, ncols=4, loc="lower right")
    connections.legend(frameon=False, ncols=3, loc="upper right")
    connections.set_xlabel("seconds")
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
