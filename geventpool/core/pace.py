"""When a resource may be opened, as the opens before it tell. Pure: never switches.

How many at once: a burst begins with one open and ramps up 2, 4 … as they succeed, because what is in use
often comes back before an open is done. A caller that has waited for as long as an open takes has seen
that nothing comes back: for it one is opened whatever the ramp says, so that nobody waits for longer than
two opens take. Not so while the server has not yet shown that it can take it, by a first success or, after
a failure, by three: a server that comes back is not met by a herd.

After a failure the next attempt waits for a pause that doubles from 0.05 s to 1 s, with jitter. If opening
has worked before, this may be a restart: for one second nobody in line is refused, and whoever asks joins
the line for the next attempt. After that, and in a pool that has never opened anything, a caller for whom
nothing else is on its way gets an attempt of its own and its error. After three failures in a row whoever
asks waits for the next attempt: nobody is refused for one that began before he asked, because the server
may be back since. For him the pause is a quarter of a second at most. Who cannot wait for the outcome,
because his time is over or the line too long, is told the last error, not that nothing came. Where an
attempt takes long to fail, because the server does not answer, whoever asks in the pause gets the last
error at once. A server that only has no room for one more is not down: its callers wait for what comes
back, and the attempt is repeated for them.
"""

from __future__ import annotations

import math
import random
from typing import Final

from ..errors import ConnectTimeout

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_LONGEST_WAIT: Final = 0.25
"""The longest pause where somebody waits for the attempt after it."""
_PROOF: Final = 3
"""So many successes, or failures, in a row are believed."""
_LONG: Final = 1.0
"""Seconds after which an attempt hangs, for who asks while the ones before it have failed, and
after which a failure was slow."""
_OUTAGE: Final = 1.0
"""Seconds for which an outage is told to nobody in line: a restart takes less."""
_WEIGHT: Final = 0.3  # of the last connect time in the mean


class Pace:
    """What the opens of one pool have shown.

    Attributes:
        connect_time: decayed mean of what one open takes, in seconds; 0 until the first.
        ramp: most opens in flight for callers that have only just come.
        last_error: why the last open failed; `None` once one has succeeded.
        is_server_full: it failed because the other side has no room.
        retry_at: after a failure: nothing is opened ahead before.
        failures: in a row.
        is_slow: the last failure took long: nobody is to wait for another attempt.
    """

    def __init__(self) -> None:
        self.connect_time = 0.0
        self.ramp = 1
        self.last_error: BaseException | None = None
        self.server_is_full = False
        self.retry_at = -math.inf
        self.failures = 0
        self.is_slow = False
        self._retry_for_callers_at = -math.inf
        self._successes = _PROOF - 1  # since the last failure; of a new pool one is enough
        self._patient_until = 0.0
        self._began_at = 0.0  # the last open

    def allowed(self, overdue: int) -> int:
        """How many opens may be in flight when so many callers are overdue."""
        return self.ramp if self._successes < _PROOF else max(self.ramp, overdue)

    def opens_at(self, is_awaited: bool) -> float:
        """When the pause after a failure is over, if somebody in line waits for that, or if not."""
        return min(self.retry_at, self._retry_for_callers_at) if is_awaited else self.retry_at

    def is_down(self, now: float) -> bool:
        """Does the server not answer, for longer than a restart takes? One that is full does."""
        is_believed = self.failures >= _PROOF and now >= self._patient_until
        return is_believed and self.last_error is not None and not self.server_is_full

    def would_fail(self, now: float, deadline: float, is_any_opening: bool) -> bool:
        """Is who asks told the last error, and not to wait? Nothing is in use that could come back."""
        if not self.is_down(now):
            return False
        if is_any_opening and now - self._began_at > _LONG:
            return True
        opens_at = self.opens_at(is_awaited=True)
        return now < opens_at and (self.is_slow or deadline <= opens_at)

    def let_one_try(self, now: float) -> None:
        """Nothing is on its way to a caller: the pause after a failure is not for it.

        It gets an attempt of its own, and that attempt's error.
        """
        if self.failures < _PROOF and now >= self._patient_until:
            self.retry_at = -math.inf

    def began(self, now: float) -> None:
        """One is being opened."""
        self._began_at = now

    def succeeded(self, seconds: float) -> None:
        """It is open after so many seconds."""
        self.last_error = None
        self.server_is_full = False
        self.failures = 0
        self.retry_at = -math.inf
        self._patient_until = 0.0
        self.connect_time += (seconds - self.connect_time) * (_WEIGHT if self.connect_time else 1.0)
        self.ramp += 1
        self._successes += 1

    def failed(
        self,
        error: BaseException,
        started: float,
        now: float,
        may_be_restart: bool,
        server_is_full: bool,
    ) -> bool:
        """It could not be opened.

        Args:
            error: why; it is kept, without its traceback.
            started: when the attempt was begun.
            now: the time.
            may_be_restart: opening has worked before, and this is an error that a restart causes.
            server_is_full: the other side has no room for one more.

        Returns:
            Is it to be told to who waits for it?
        """
        self.doubt()
        if not may_be_restart:
            self._patient_until = 0.0
        elif self.last_error is None or self.server_is_full:
            self._patient_until = started + _OUTAGE
        self.last_error = error
        self.server_is_full = server_is_full
        if server_is_full or isinstance(error, ConnectTimeout):
            self.failures = max(self.failures, _PROOF - 1)  # no need to see it three times
        self.is_slow = now - started > _LONG or isinstance(error, ConnectTimeout)
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.failures, 16))
        wait = pause if self.is_slow or server_is_full else min(pause, _LONGEST_WAIT)
        share = random.uniform(0.5, 1.0)  # or all processes would come back at once
        self.failures += 1
        self.retry_at, self._retry_for_callers_at = now + share * pause, now + share * wait
        if server_is_full:
            return False  # those in line wait for a return, or for room
        if now < self._patient_until:
            self.retry_at = min(self.retry_at, self._patient_until)
            return False
        return True

    def interrupted(self, now: float) -> None:
        """Somebody has ended the greenlet that was opening one: another may, in a moment."""
        self.failures = max(1, self.failures)
        self.retry_at = self._retry_for_callers_at = now + _FIRST_PAUSE

    def doubt(self) -> None:
        """The other side may be gone, so it is to prove itself again."""
        self._successes = 0
        self.ramp = 1

    def burst_is_over(self) -> None:
        """Nothing is being opened, and nobody waits."""
        self.ramp = 1
