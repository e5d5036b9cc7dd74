"""The ledger under every operation in any order, against a naive recount."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from geventpool.core.entry import CLOSED, CLOSING, IDLE, IN_USE, OPENING, Entry
from geventpool.core.ledger import Ledger


class LedgerMachine(RuleBasedStateMachine):
    """Keeps every entry it was ever given and recounts their states after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: Ledger = Ledger(3)
        self.entries: list[Entry] = []

    def of(self, *states: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.state in states]

    def pick(self, data: Any, *states: str) -> Entry:
        return data.draw(st.sampled_from(self.of(*states)))

    @rule(size=st.integers(1, 5))
    def resize(self, size: int) -> None:
        self.ledger.cap.configured = size

    @rule(most=st.one_of(st.integers(0, 5), st.just(math.inf)))
    def grant(self, most: float) -> None:
        self.ledger.cap.granted = most

    @rule(lifo=st.booleans())
    def change_order(self, lifo: bool) -> None:
        self.ledger.lifo = lifo

    @rule()
    def take(self) -> None:
        idle = list(self.ledger.idle)
        entry = self.ledger.take()
        assert entry is (None if not idle else idle[-1 if self.ledger.lifo else 0])

    @rule()
    def reserve(self) -> None:
        room, surplus = self.ledger.room, self.ledger.surplus
        entry = self.ledger.reserve()
        assert (entry is None) == (room <= 0)
        assert room > 0 or surplus + self.ledger.closing >= 0
        if entry is not None:
            self.entries.append(entry)

    @precondition(lambda self: self.of(OPENING))
    @rule(data=st.data())
    def opened(self, data: Any) -> None:
        self.ledger.opened(self.pick(data, OPENING))

    @precondition(lambda self: self.of(OPENING))
    @rule(data=st.data())
    def open_failed(self, data: Any) -> None:
        self.ledger.open_failed(self.pick(data, OPENING))

    @precondition(lambda self: self.of(IN_USE))
    @rule(data=st.data())
    def put(self, data: Any) -> None:
        self.ledger.put(self.pick(data, IN_USE))

    @precondition(lambda self: self.of(IN_USE, IDLE))
    @rule(data=st.data())
    def retire(self, data: Any) -> None:
        self.ledger.retire(self.pick(data, IN_USE, IDLE))

    @precondition(lambda self: self.of(CLOSING))
    @rule(data=st.data())
    def closed(self, data: Any) -> None:
        self.ledger.closed(self.pick(data, CLOSING))

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def impossible_steps_are_bugs(self, data: Any) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        wrong = {
            OPENING: [self.ledger.put, self.ledger.retire, self.ledger.closed],
            IDLE: [self.ledger.put, self.ledger.closed, self.ledger.opened],
            IN_USE: [self.ledger.opened, self.ledger.closed, self.ledger.open_failed],
            CLOSING: [self.ledger.put, self.ledger.retire, self.ledger.opened],
            CLOSED: [self.ledger.put, self.ledger.retire, self.ledger.closed],
        }[entry.state]
        with pytest.raises(AssertionError, match="bug"):
            data.draw(st.sampled_from(wrong))(entry)

    @invariant()
    def the_counters_are_those_of_a_recount(self) -> None:
        self.ledger.check()
        counted = Counter(entry.state for entry in self.entries)
        ledger = self.ledger
        assert counted[OPENING] == ledger.opening
        assert counted[IDLE] == len(ledger.idle) == len(set(ledger.idle))
        assert counted[IN_USE] == ledger.in_use
        assert counted[CLOSING] == ledger.closing
        assert ledger.size == sum(counted.values()) - counted[CLOSED]
        assert ledger.entries == set(self.of(IDLE, IN_USE, CLOSING))


TestLedger = LedgerMachine.TestCase
