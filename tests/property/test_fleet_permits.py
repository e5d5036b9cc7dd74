"""The permit file, by real processes that take, give back, fork, and are killed, in any order."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from geventpool.fleet.permits import LINGERS, SETTLES_AFTER

ROOT = Path(__file__).parents[2]


class PermitMachine(RuleBasedStateMachine):
    """Drives the processes, and a model of what each of them has."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="fleet-"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.property.permit_holders", self.folder / "one"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.numbers = itertools.count(1)
        self.held: dict[int, set[int]] = {}
        self.settling: dict[int, dict[int, float]] = {}  # by who has found them: until when
        self.marked: set[int] = set()  # of killed holders, and found by nobody yet
        self.size = 4
        self.now = 100.0

    def tell(self, who: int, *what: Any) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, (who, *what))) + "\n")
        return self.process.stdout.readline().strip()

    def draw(self, data: Any) -> int:
        return int(data.draw(st.sampled_from(sorted(self.held))))

    @precondition(lambda self: len(self.held) < 4)
    @rule()
    def start(self) -> None:
        who = next(self.numbers)
        self.tell(who, "start")
        self.held[who], self.settling[who] = set(), {}

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def take(self, data: Any) -> None:
        who = self.draw(data)
        taken = {
            *itertools.chain(*self.held.values()),
            *itertools.chain(*self.settling.values()),
        }
        answer = self.tell(who, "take", self.size, self.now)
        if any(number >= self.size for number in taken):
            assert answer == "None", "the fleet was larger, and is not small enough yet"
            return
        number = next((one for one in range(self.size) if one not in taken | self.marked), None)
        assert answer == str(number), "the first that is free"
        found = {one for one in self.marked if one < (self.size if number is None else number)}
        self.marked -= found
        for one in found:
            self.settling[who][one] = self.now + SETTLES_AFTER
        if number is not None:
            self.held[who].add(number)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def give_back(self, data: Any) -> None:
        who = data.draw(st.sampled_from(sorted(one for one in self.held if self.held[one])))
        number = data.draw(st.sampled_from(sorted(self.held[who])))
        self.held[who].remove(number)
        self.settling[who][number] = self.now + LINGERS
        self.tell(who, "give", number, self.now)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def kill(self, data: Any) -> None:
        who = self.draw(data)
        self.tell(who, "kill")
        self.marked |= self.held.pop(who) | self.settling.pop(who).keys()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def fork(self, data: Any) -> None:
        """A child that lives on has nothing of its parent's, and keeps nothing of it."""
        self.tell(self.draw(data), "fork")

    @precondition(lambda self: self.held)
    @rule(data=st.data(), seconds=st.sampled_from([0.005, 0.05, 0.3]))
    def settle(self, data: Any, seconds: float) -> None:
        who = self.draw(data)
        self.now += seconds
        self.tell(who, "settle", self.now)
        for number in [one for one, at in self.settling[who].items() if at <= self.now]:
            del self.settling[who][number]

    @rule(size=st.integers(1, 5))
    def resize(self, size: int) -> None:
        self.size = size

    @invariant()
    def nobody_has_what_another_has(self) -> None:
        everything = [*itertools.chain(*self.held.values())]
        assert len(everything) == len(set(everything))

    def teardown(self) -> None:
        """Nothing is lost: when all is given back, and what was left behind has settled, all is free."""
        try:
            for who in list(self.held):
                self.kill_now(who)
            self.start()
            (who,) = self.held
            first = self.tell(who, "take", 5, self.now)
            while first != "None":
                self.held[who].add(int(first))
                first = self.tell(who, "take", 5, self.now)
            self.tell(who, "settle", self.now + 1)
            again = [self.tell(who, "take", 5, self.now + 1) for _ in range(6)]
            assert len(self.held[who]) + 6 - again.count("None") == 5
        finally:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.wait(10)
            self.process.stdout.close()
            shutil.rmtree(self.folder)

    def kill_now(self, who: int) -> None:
        self.tell(who, "kill")
        del self.held[who], self.settling[who]


TestPermits = PermitMachine.TestCase
TestPermits.settings = settings(
    max_examples=int(os.environ.get("GEVENTPOOL_EXAMPLES", "60")) // 6,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
