"""The settings of a pool: what they are called, what they may be, and the named profiles."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from .errors import ConfigError
from .sizing import SizingPolicy, adaptive, fixed, poisson
from .sizing.paced import Knob, Paced

DEFAULT_MAX_SIZE: Final = 20
"""Hard cap when nothing is said; docs/sizing.md has the measurement behind it."""

DEFAULT_MAX_OVERFLOW: Final = 10
"""What `QueuePool` adds to a `pool_size` that comes alone."""

PROFILES: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {
        "pool_size": 10,
        "max_overflow": 5,
        "timeout": 30,
        "recycle": 1800,
        "pre_ping": True,
    },
    "development": {"pool_size": 5, "max_overflow": 0, "recycle": 3600, "echo": True},
    "testing": {"pool_size": 1, "max_overflow": 0, "recycle": 3600},
    "staging": {"pool_size": 15, "max_overflow": 10, "recycle": 1800, "pre_ping": True},
    "production": {
        "pool_size": 50,
        "max_overflow": 25,
        "timeout": 60,
        "recycle": 1800,
        "pre_ping": True,
    },
    "vps_lite": {
        "pool_size": 20,
        "max_overflow": 10,
        "timeout": 30,
        "recycle": 1800,
        "pre_ping": True,
    },
    "raspberry_pi": {"pool_size": 2, "max_overflow": 1, "recycle": 3600},
    "high_traffic": {
        "pool_size": 100,
        "max_overflow": 50,
        "timeout": 10,
        "recycle": 1800,
        "pre_ping": True,
    },
    "background_jobs": {
        "pool_size": 20,
        "max_overflow": 0,
        "timeout": 300,
        "recycle": 3600,
        "pre_ping": True,
    },
    "microservice": {
        "pool_size": 10,
        "max_overflow": 5,
        "timeout": 5,
        "recycle": 1800,
        "pre_ping": True,
    },
}
"""Settings by the kind of program, as `profile=` takes them; anything said beside a profile wins."""

SIZING: Final = frozenset(
    {
        "breakeven",
        "core_size",
        "retire_interval",
        "retire_quantity",
        "sizing",
        "unload_timeout",
    }
)
"""The settings that make another policy."""

# With `pre_ping`, a connection that was given back less than so many seconds ago has its socket looked at
# instead, as in HikariCP (`aliveBypassWindowMs`). That misses only a link that was lost without a sign,
# and within these seconds.
_SURE_FOR = 1.0
_MOST = 10**9
_SIZINGS = ("adaptive", "poisson", "fixed")
_RESETS = {
    "smart": "smart",
    True: "rollback",
    "rollback": "rollback",
    "commit": "commit",
    None: None,
    False: None,
    "none": None,
}


@dataclass(frozen=True)
class PoolConfig:
    """The settings of one pool, checked. Durations are seconds.

    Those that `QueuePool` has, too, are read as it does: numbers of any kind, and whatever is true or not.
    So the text `"false"` is true; the options of a URL are parsed.

    Attributes:
        max_size: hard cap of connections in any state; `math.inf` for none.
        min_idle: idle connections are never closed while the pool is no larger than this;
            `warm_up()` opens this many ahead.
        timeout: longest time that a caller waits for a connection, connecting included; `None`: for
            ever; 0: take what is idle or fail.
        recycle: a connection older than this is replaced before its next use; -1: never.
        pre_ping: a connection that was idle for more than a second is pinged before it is lent; of a
            fresher one, as without this, the socket is looked at; where there is none, it is pinged.
        ping_after: a connection idle for longer is pinged before it is lent, because a network
            device that forgot it leaves no sign on the socket; 0: at each checkout.
        use_lifo: lend the connection that was returned last, so that surplus ones age and go.
        cleaner: close idle connections by a hub timer; else `acquire` and `release` do it.
        sizing: `"adaptive"`, `"poisson"`, `"fixed"` or a policy made by `geventpool.sizing`.
        breakeven: the seconds of idling that one connect is worth; `None`: the sizing's default.
        reset_on_return: `"smart"` sends a rollback only if the driver cannot rule out an open
            transaction; `"rollback"` and `"commit"` send one always, `None` never.
        connect_timeout: an attempt to connect that takes longer has failed.
        cancel_deadline: a query that a kill or a time-out has left in the middle is cancelled on the
            server, and its place in the pool is free when the server has let go, or after so many
            seconds; 0: not cancelled, free at once.
        reclaim_after: a connection whose greenlet has ended without giving it back, and that no other
            greenlet uses, is reported and closed after so many seconds; `None`: only reported.
        max_waiting: longest line, not counting those for whom there is room to open; who would be
            beyond gets `PoolOverloaded` at once. `None`: no limit.
        shed_after: when the line has not been empty for so many seconds, the newest caller is served
            first and who has waited for longer gets `PoolOverloaded`. `None`: never.
        is_disconnect: is asked of each error of the driver's that passes through a lent connection, and
            says by True that the server behind it is no longer the one, so that it and all that were
            opened before are replaced. Beside what the pool knows; in SQLAlchemy beside its own.
        core_size: no connection is retired while the pool is no larger, and `unload_timeout` holds only
            above it. This and the next three may be functions, called at use; `None`: not used.
        retire_interval: surplus connections are closed `retire_quantity` at a time, so many seconds
            apart, and none before it has been idle for as long.
        retire_quantity: see there.
        unload_timeout: a caller for whom one would be opened above `core_size` first waits for a return
            so many seconds.

    Raises:
        ConfigError: naming the setting, its value and the cure.
    """

    max_size: float = DEFAULT_MAX_SIZE
    min_idle: int = 1
    timeout: float | None = 30.0
    recycle: float = -1
    pre_ping: bool = False
    ping_after: float = 60.0
    use_lifo: bool = True
    cleaner: bool = True
    sizing: str | SizingPolicy = "adaptive"
    breakeven: float | None = None
    reset_on_return: str | bool | None = "smart"
    connect_timeout: float = 10.0
    cancel_deadline: float = 5.0
    reclaim_after: float | None = 1.0
    max_waiting: int | None = None
    shed_after: float | None = None
    is_disconnect: Callable[[BaseException], object] | None = None
    core_size: Knob = None
    retire_interval: Knob = None
    retire_quantity: Knob = None
    unload_timeout: Knob = None

    def __post_init__(self) -> None:
        if self.max_size != math.inf:
            _whole("max_size", self.max_size, 1)
        _whole("min_idle", self.min_idle, 0)
        if self.min_idle > self.max_size:
            raise ConfigError(
                "min_idle", self.min_idle, f"is above max_size={self.max_size:g}; lower it"
            )
        self._read_as_queue_pool_does()
        _seconds("ping_after", self.ping_after, "a number of seconds; math.inf for never")
        _seconds("connect_timeout", self.connect_timeout, "a number of seconds above 0", least=1e-3)
        _seconds("cancel_deadline", self.cancel_deadline, "a number of seconds; 0 to never cancel")
        if self.cancel_deadline == math.inf:
            raise ConfigError(
                "cancel_deadline",
                math.inf,
                "give a number of seconds: a place is not held for ever",
            )
        if self.reclaim_after is not None:
            _seconds("reclaim_after", self.reclaim_after, "a number of seconds, or None")
        if self.max_waiting is not None:
            _whole("max_waiting", self.max_waiting, 0)
        if self.shed_after is not None:
            _seconds("shed_after", self.shed_after, "a number of seconds above 0, or None", 1e-3)
        if self.is_disconnect is not None and not callable(self.is_disconnect):
            raise ConfigError(
                "is_disconnect", self.is_disconnect, "give a function of an error, or None"
            )
        if not isinstance(self.cleaner, bool):
            raise ConfigError("cleaner", self.cleaner, "give True or False")
        if self.breakeven is not None:
            _seconds("breakeven", self.breakeven, "a number of seconds above 0", least=1e-3)
        self.policy()

    def _read_as_queue_pool_does(self) -> None:
        """What `QueuePool` has, too, may be of any type that it can work with, and means the same."""
        timeout = self.timeout
        if timeout is not None:
            timeout = _number("timeout", timeout, "a number of seconds, 0 to never wait, or None")
            timeout = max(0, timeout) if timeout <= _MOST else math.inf
        recycle = -1.0 if self.recycle != self.recycle else self.recycle  # NaN: never
        recycle = _number("recycle", recycle, "a number of seconds, or -1 for never")
        try:
            reset = _RESETS[self.reset_on_return]
        except (KeyError, TypeError):
            raise ConfigError(
                "reset_on_return",
                self.reset_on_return,
                "give 'smart', 'rollback', 'commit' or None",
            ) from None
        read = {
            "timeout": timeout,
            "recycle": -1 if recycle <= -1 else max(0, recycle),
            "pre_ping": bool(self.pre_ping),
            "use_lifo": bool(self.use_lifo),
            "reset_on_return": reset,
        }
        for name, value in read.items():
            object.__setattr__(self, name, value)

    @property
    def lifetime(self) -> float:
        """`recycle` as a span of time: `math.inf` for never."""
        return math.inf if self.recycle == -1 else self.recycle

    def sure_for(self, is_watched: bool) -> float:
        """For how many seconds from its return a connection is lent without a ping.

        Args:
            is_watched: it has a socket to look at.
        """
        if not self.pre_ping:
            return self.ping_after
        return min(_SURE_FOR, self.ping_after) if is_watched else 0.0

    def for_memory(self, is_shared: bool) -> PoolConfig:
        """The same for a database in memory, of which one connection has to stay open.

        Args:
            is_shared: by its connections; else each connection would have a database of its own.
        """
        most, least = (self.max_size, max(1, self.min_idle)) if is_shared else (1, 1)
        return replace(self, max_size=most, min_idle=least, recycle=-1, reclaim_after=None)

    def policy(self) -> SizingPolicy:
        """A new sizing policy, without a history, for one pool."""
        knobs = self.core_size, self.retire_interval, self.retire_quantity, self.unload_timeout
        inner = self._unpaced_policy()
        return inner if all(knob is None for knob in knobs) else Paced(inner, *knobs)

    def _unpaced_policy(self) -> SizingPolicy:
        if isinstance(self.sizing, str):
            if self.sizing == "fixed":
                if self.breakeven is not None:
                    raise ConfigError(
                        "breakeven",
                        self.breakeven,
                        "has no meaning for sizing='fixed'; leave it out",
                    )
                return fixed(
                    max_size=max(1, int(min(self.max_size, 1e9))),
                    # Where there is a pace, that alone says how long a connection idles.
                    idle_timeout=600.0 if self.retire_interval is None else 0.0,
                )
            if self.sizing == "adaptive":
                return adaptive() if self.breakeven is None else adaptive(breakeven=self.breakeven)
            if self.sizing == "poisson":
                return (
                    poisson() if self.breakeven is None else poisson(open_interval=self.breakeven)
                )
        elif not isinstance(self.sizing, type) and all(
            hasattr(self.sizing, name) for name in ("fresh", "closes_at", "open_delay")
        ):
            if self.breakeven is not None:
                raise ConfigError(
                    "breakeven", self.breakeven, "give it to the sizing policy instead"
                )
            return self.sizing.fresh()
        raise ConfigError(
            "sizing",
            self.sizing,
            f"give one of {', '.join(_SIZINGS)}, or a geventpool.sizing policy",
        )


def make_config(
    *,
    profile: str | None = None,
    pool_size: int | None = None,
    max_overflow: int | None = None,
    max_size: float | None = None,
    **settings: Any,
) -> PoolConfig:
    """Puts together what a user said, a profile and the defaults, in this order of precedence.

    `None` means "not said", except where `PoolConfig` gives it a meaning; there leaving it out does.

    Args:
        profile: a name from `PROFILES`.
        pool_size: as in SQLAlchemy's `QueuePool`: with `max_overflow` it makes the hard cap; 0: none.
            Both may be numbers of any kind, and text.
        max_overflow: as in `QueuePool`; -1: no cap.
        max_size: the hard cap itself, instead of the two.
        **settings: fields of `PoolConfig`.

    Raises:
        ConfigError: naming the setting, its value and the cure.
    """
    known = {field.name for field in fields(PoolConfig)}
    for name in settings.keys() - known:
        nearest = difflib.get_close_matches(
            name, [*known, "pool_size", "max_overflow", "profile"], 1
        )
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(name, settings[name], f"there is no such setting{hint}")
    if max_size is not None and (pool_size is not None or max_overflow is not None):
        raise ConfigError(
            "max_size",
            max_size,
            "says the same as pool_size and max_overflow; give one or the other",
        )
    if profile is not None:
        chosen = dict(profile_settings(profile))
        chosen.pop("echo", None)
        if max_size is None:
            pool_size = chosen["pool_size"] if pool_size is None else pool_size
            max_overflow = chosen["max_overflow"] if max_overflow is None else max_overflow
        del chosen["pool_size"], chosen["max_overflow"]
        settings = {**chosen, **settings}
    policy = settings.get("sizing")
    if pool_size is not None or max_overflow is not None:
        max_size = _cap(pool_size, max_overflow)
    if max_size is None:
        max_size = getattr(policy, "max_size", None) or DEFAULT_MAX_SIZE
    if "min_idle" not in settings and getattr(policy, "min_idle", None) is not None:
        settings["min_idle"] = policy.min_idle  # type: ignore[union-attr]
    return PoolConfig(max_size=max_size, **settings)


def profile_settings(profile: str) -> Mapping[str, Any]:
    """The settings of a profile.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return PROFILES[profile]
    except (KeyError, TypeError):
        raise ConfigError("profile", profile, f"give one of {', '.join(PROFILES)}") from None


def change(said: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a user has said in all, when new settings are said to a pool that runs.

    The new ones win; what they leave open stays as it was said before. A profile counts as all that it
    sets, and a cap said in one way takes the place of one said in another.

    Raises:
        ConfigError: there is no such profile.
    """
    new = dict(settings)
    profile = new.pop("profile", None)
    if profile is not None:
        new = {**_without(profile_settings(profile), {"echo"}), **new}
    before = dict(said)
    if "max_size" in new:
        new = _without(new, {"pool_size", "max_overflow"} - settings.keys())
        before = _without(before, {"pool_size", "max_overflow"})
    elif new.keys() & {"pool_size", "max_overflow"}:
        before = _without(before, {"max_size"})
    return {**before, **new}


def split_cap(config: PoolConfig, pool_size: int | None) -> tuple[int, int]:
    """`pool_size` and `max_overflow` as `QueuePool` would show them for this configuration."""
    size = config.max_size if pool_size is None else _number("pool_size", pool_size, "a number")
    if config.max_size == math.inf:
        return 0 if size == math.inf else math.ceil(size), -1
    shown = math.ceil(min(size, config.max_size))
    return shown, int(config.max_size) - shown


def _without(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _cap(pool_size: Any, max_overflow: Any) -> float:
    """What `QueuePool` would open at most."""
    size = _number("pool_size", 5 if pool_size is None else pool_size, "a number, 0 for no cap")
    overflow = DEFAULT_MAX_OVERFLOW if max_overflow is None else max_overflow
    overflow = _number("max_overflow", overflow, "a number, -1 for no cap")
    if size == 0 or overflow == -1 or size + overflow > _MOST:
        return math.inf
    if size + overflow <= 0:
        name, other = (
            ("max_overflow", "pool_size") if overflow < 0 else ("pool_size", "max_overflow")
        )
        value, beside = (max_overflow, size) if overflow < 0 else (pool_size, overflow)
        raise ConfigError(name, value, f"with {other}={beside} it leaves no room for a connection")
    return math.ceil(size + overflow)


def _number(name: str, value: Any, wanted: str) -> float:
    """A number of any kind: `QueuePool` asks nothing else of it. Also text, as an .ini has it."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise ConfigError(name, value, f"give {wanted}")
    return int(number) if number.is_integer() else number


def _whole(name: str, value: object, least: float) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(name, value, "give a whole number")
    if not least <= value <= _MOST:
        raise ConfigError(name, value, f"give {least} or more, up to {_MOST:,}")


def _seconds(name: str, value: object, wanted: str, least: float = 0.0) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(name, value, f"give {wanted}")
    if not (least <= value <= _MOST or value == math.inf):
        raise ConfigError(name, value, f"give {wanted}")
