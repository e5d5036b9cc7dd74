"""What stands behind the names of policies: our own through the real pool, the others as models."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from ..config import PoolConfig
from ..errors import ConfigError
from ..sizing import SizingPolicy, fixed
from .optimum import best_queuepool_size, optimum
from .outcome import Outcome, Timeline, Waits
from .peers import DjangoQueuePool, HikariCP, Peer, PsycopgPool, QueuePool, SAAutoPool
from .replay import Replay
from .trace import Trace

DEFAULTS: Final = (
    "adaptive",
    "poisson",
    "idle:600",
    "queuepool:5+10",
    "queuepool:best",
    "saautopool",
    "djangoqueuepool",
    "hikaricp",
    "psycopg_pool",
)
"""The policies that are compared if nothing is said."""

OVERFLOW: Final = 10
"""What QueuePool adds to its `pool_size` by default."""

Progress = Callable[[float], object]


@dataclass(frozen=True)
class Setting:
    """The circumstances of a simulation. Durations are seconds.

    Args:
        breakeven: C, the seconds of idling that one connect is worth.
        connect: what opening a connection takes.
        max_size: most connections at once.
        min_idle: our pool never closes idle connections while it is no larger.
        horizon: until when idling is charged; `None`, or before the last return: until that.

    Raises:
        ConfigError: naming the argument.
    """

    breakeven: float = 30.0
    connect: float = 0.02
    max_size: int = 100
    min_idle: int = 0
    horizon: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("breakeven", 1e-3), ("connect", 0.0)):
            value = getattr(self, name)
            if not least <= value <= 1e6:
                raise ConfigError(name, value, f"give seconds from {least:g} to 1e6")
        if self.horizon is not None and not -math.inf < self.horizon < math.inf:
            raise ConfigError("horizon", self.horizon, "give a time, as in the trace's column t")
        PoolConfig(max_size=self.max_size, min_idle=self.min_idle)

    def end_of(self, trace: Trace) -> float:
        """Until when idling is charged on a trace: never before its last return."""
        end = trace.last_return
        return end if self.horizon is None else max(end, self.horizon)


class Run(Protocol):
    """What both the real pool and a model can tell afterwards."""

    opens: int
    idle_seconds: float
    peak: int
    waits: Waits
    timeline: Timeline


def simulate(
    trace: Trace,
    policy: str = "adaptive",
    setting: Setting | None = None,
    progress: Progress = float,
) -> Outcome:
    """Replays a trace through one policy, in virtual time. Switches greenlets.

    Args:
        trace: the load.
        policy: one of `DEFAULTS`, with other figures as the user likes: `idle:SECONDS`,
            `queuepool:SIZE+OVERFLOW`, `hikaricp:MINIMUM_IDLE`, `psycopg_pool:MIN_SIZE`.
        setting: the circumstances.
        progress: called now and then with the share that is done.

    Raises:
        ConfigError: there is no such policy, or the setting does not fit the trace.
    """
    setting = setting or Setting()
    run = runner(policy)(trace, setting, setting.end_of(trace), progress)
    return outcome(trace, policy, setting, run, run.idle_seconds)


def outcome(trace: Trace, policy: str, setting: Setting, run: Run, idle_seconds: float) -> Outcome:
    """The figures of a run that has been made, with so many seconds of idling."""
    least = optimum(trace, setting.breakeven)
    cost = run.opens * setting.breakeven + idle_seconds
    p50, p99, longest = run.waits.quantiles(len(trace))
    return Outcome(
        trace=trace.name,
        policy=policy,
        opens=run.opens,
        idle_seconds=idle_seconds,
        waited=len(run.waits.seconds),
        p50=p50,
        p99=p99,
        max_wait=longest,
        peak=run.peak,
        cost=cost,
        optimum=least,
        ratio=cost / least,
        timeline=run.timeline,
    )


Runner = Callable[[Trace, Setting, float, Progress], Run]


def runner(policy: str) -> Runner:
    """What replays a trace with the policy of this name.

    Raises:
        ConfigError: there is none, or its figures cannot be used.
    """
    name, _, figures = policy.partition(":")
    makers = _MAKERS.get(name)
    if makers is None:
        near = difflib.get_close_matches(name, _MAKERS, 1)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(_MAKERS)}"
        raise ConfigError("policy", policy, f"there is no such policy; {hint}")
    try:
        return makers(figures)
    except ValueError as error:
        cure = error.cure if isinstance(error, ConfigError) else f"write {_FORMS[name]}"
        raise ConfigError("policy", policy, cure) from None


def _ours(make: Callable[[Setting], SizingPolicy]) -> Runner:
    def run(trace: Trace, setting: Setting, end: float, progress: Progress) -> Run:
        replay = Replay(
            trace,
            make(setting),
            connect=setting.connect,
            max_size=setting.max_size,
            min_idle=setting.min_idle,
            horizon=end,
            progress=progress,
        )
        replay.run()
        return replay

    return run


def _theirs(make: Callable[[Trace, Setting, float], Peer]) -> Runner:
    def run(trace: Trace, setting: Setting, end: float, progress: Progress) -> Run:
        peer = make(trace, setting, end)
        peer.run(trace, end, progress)
        return peer

    return run


def _named(sizing: str) -> Callable[[str], Runner]:
    def made(figures: str) -> Runner:
        given = float(figures) if figures else None
        PoolConfig(sizing=sizing, breakeven=given).policy()  # told now if it is wrong
        return _ours(
            lambda setting: PoolConfig(
                sizing=sizing, breakeven=setting.breakeven if given is None else given
            ).policy()
        )

    return made


def _idle(figures: str) -> Runner:
    timeout = float(figures)
    fixed(0, 1, timeout)  # told now if it is wrong
    return _ours(lambda setting: fixed(0, setting.max_size, timeout))


def _queuepool(figures: str) -> Runner:
    if figures == "best":
        return _theirs(_best_queuepool)
    size, _, overflow = (figures or "5").partition("+")
    keeps, more = int(size), int(overflow or OVERFLOW)
    if keeps < 0 or more < -1:
        raise ValueError
    return _theirs(lambda trace, setting, end: QueuePool(setting.connect, keeps, more))


def _best_queuepool(trace: Trace, setting: Setting, end: float) -> Peer:
    size = best_queuepool_size(trace, setting.breakeven, setting.max_size, end)
    return QueuePool(setting.connect, size, setting.max_size - size)


def _saautopool(figures: str) -> Runner:
    return _plain(figures, lambda _, setting, __: SAAutoPool(setting.connect, setting.max_size))


def _djangoqueuepool(figures: str) -> Runner:
    return _plain(
        figures, lambda _, setting, __: DjangoQueuePool(setting.connect, setting.max_size)
    )


def _plain(figures: str, make: Callable[[Trace, Setting, float], Peer]) -> Runner:
    if figures:
        raise ValueError
    return _theirs(make)


def _hikaricp(figures: str) -> Runner:
    least = _count(figures or "1")
    return _theirs(
        lambda trace, setting, end: HikariCP(
            setting.connect, setting.max_size, min(least, setting.max_size)
        )
    )


def _psycopg_pool(figures: str) -> Runner:
    least = _count(figures or "4")
    return _theirs(
        lambda trace, setting, end: PsycopgPool(
            setting.connect, setting.max_size, min(least, setting.max_size)
        )
    )


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 10**6:
        raise ValueError
    return number


_MAKERS: Final[Mapping[str, Callable[[str], Runner]]] = {
    "adaptive": _named("adaptive"),
    "poisson": _named("poisson"),
    "idle": _idle,
    "queuepool": _queuepool,
    "saautopool": _saautopool,
    "djangoqueuepool": _djangoqueuepool,
    "hikaricp": _hikaricp,
    "psycopg_pool": _psycopg_pool,
}

_FORMS: Final[Mapping[str, str]] = {
    "adaptive": "adaptive, or adaptive:BREAKEVEN in seconds",
    "poisson": "poisson, or poisson:OPEN_INTERVAL in seconds",
    "idle": "idle:SECONDS",
    "queuepool": "queuepool:SIZE+OVERFLOW or queuepool:best",
    "saautopool": "saautopool, it takes no figures",
    "djangoqueuepool": "djangoqueuepool, it takes no figures",
    "hikaricp": "hikaricp, or hikaricp:MINIMUM_IDLE",
    "psycopg_pool": "psycopg_pool, or psycopg_pool:MIN_SIZE",
}
