"""The settings of a pool, each declared once: a field of `PoolConfig`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from .errors import ConfigError
from .profiles import profile_settings
from .setting import (
    AGE,
    ANY_NAME,
    ANY_SECONDS,
    ANY_WHOLE,
    CAP,
    DEADLINE,
    FLAG,
    FLEET,
    FLEET_SIZE,
    FUNCTION,
    MOST,
    NAME,
    NOT_GIVEN,
    RESET,
    TIMEOUT,
    TRUTH,
    WHOLE,
    Setting,
    T,
    explain,
    or_none,
    read_number,
    seconds,
    setting,
    show,
)
from .sizing import SizingPolicy, adaptive, fixed, poisson
from .sizing.paced import Knob, Paced

DEFAULT_MAX_SIZE: Final = 20
"""Hard cap when none is given; docs/sizing.md has the measurement behind it."""

AUTO: Final = "auto"
AUTO_BOUND: Final = 100
"""What `max_size="auto"` never goes beyond without a fleet: PostgreSQL's default `max_connections`."""

DEFAULT_MAX_OVERFLOW: Final = 10
"""What `QueuePool` adds to a `pool_size` that comes alone."""

# See `pre_ping`; as HikariCP's `aliveBypassWindowMs`. It misses a link that is lost without a sign.
_SURE_FOR = 1.0
_SIZINGS = ("adaptive", "poisson", "fixed")


SMART: Final = ("smart", "behind")
"""The ways to reset by which a connection is left alone that is known to be clean."""


@dataclass(frozen=True)
class PoolConfig:
    """The settings of one pool, checked. Durations are seconds.

    Those that `QueuePool` has, too, are read as it does: numbers of any kind, and whatever is true or not.
    So the text `"false"` is true; the options of a URL are parsed.

    Attributes:
        **settings: see the fields.

    Raises:
        ConfigError: naming the setting, its value and the cure.
    """

    max_size: float = setting(
        DEFAULT_MAX_SIZE,
        "hard cap of connections in any state, as `pool_size` and `max_overflow` together make one; "
        '`math.inf`: none; `"auto"`: `auto_cap` below `fleet_size`, or 100 without a fleet',
        CAP,
    )
    auto_cap: bool = setting(
        False,
        "below the hard cap the pool looks for the smallest cap with the best throughput, and follows "
        "it when the load or the server changes",
        FLAG,
    )
    min_idle: int = setting(
        1,
        "idle connections are never closed while the pool is no larger; `pool.warm_up()` opens as many "
        "ahead",
        WHOLE,
    )
    timeout: float | None = setting(
        30.0,
        "seconds that a caller waits for a connection, connecting included; `None`: for ever; 0: never, "
        "neither for others nor, outside SQLAlchemy, for a connect",
        TIMEOUT,
    )
    recycle: float = setting(
        -1,
        "age in seconds beyond which a connection is not lent; its replacement is opened first, from "
        "75 % of it on; -1: never",
        AGE,
    )
    pre_ping: bool = setting(
        False,
        "a connection that was idle for more than a second is pinged before it is lent; a fresher one "
        "has its socket looked at, as always; one that has no socket to look at, as of an unknown "
        "DBAPI, is pinged at each checkout",
        TRUTH,
    )
    ping_after: float = setting(
        60.0,
        "a connection idle for more seconds is pinged before it is lent, because a network device that "
        "forgot it leaves no sign on the socket; 0: at each checkout",
        seconds("a number of seconds; math.inf for never"),
    )
    use_lifo: bool = setting(
        True,
        "lend the connection that was returned last; off keeps all of them busy, and so from being "
        "surplus",
        replace(TRUTH, takes_none=True),
    )
    cleaner: bool = setting(
        True,
        "close what is due by a hub timer; off: checkouts and returns do it",
        FLAG,
        is_final=True,
    )
    sizing: str | SizingPolicy = setting(
        "adaptive",
        'how many connections stay idle: `"adaptive"`, `"poisson"`, `"fixed"`, or a policy of '
        "`geventpool.sizing`",
        ANY_NAME,
        is_sizing=True,
        may_be_called=True,
    )
    breakeven: float | None = setting(
        None,
        "the one knob of `adaptive`: the seconds of idling that one connect is worth; `None`: 30",
        or_none(seconds("a number of seconds above 0", least=1e-3)),
        is_sizing=True,
    )
    reset_on_return: str | bool | None = setting(
        "smart",
        'a rollback only if the driver cannot rule out an open transaction; `"behind"`: the same, and '
        "nobody waits for its answer where it is known to be all that is needed; or always "
        '`"rollback"`, `"commit"`, or `None`',
        RESET,
    )
    connect_timeout: float = setting(
        10.0,
        "an attempt to connect that takes more seconds has failed",
        seconds("a number of seconds above 0", least=1e-3),
    )
    cancel_deadline: float = setting(
        5.0,
        "an abandoned query is cancelled on the server; its place is free when the server has let go, "
        "or after so many seconds; 0: it is not cancelled, and its place is free at once",
        DEADLINE,
    )
    reclaim_after: float | None = setting(
        1.0,
        "a connection whose greenlet has ended without giving it back, and that no other greenlet uses, "
        "is reported, and closed after so many seconds; `None`: only reported",
        or_none(seconds("a number of seconds, or None")),
    )
    max_waiting: int | None = setting(
        None,
        "longest line, not counting those for whom there is room to open; who would be beyond gets "
        "`PoolOverloaded` at once; `None`: no limit",
        or_none(WHOLE),
    )
    shed_after: float | None = setting(
        None,
        "a line that has not been empty for so many seconds is served newest first, and who has waited "
        "for longer gets `PoolOverloaded`; `None`: never",
        or_none(seconds("a number of seconds above 0, or None", least=1e-3)),
    )
    is_disconnect: Callable[[BaseException], object] | None = setting(
        None,
        "a function of the driver's error: True if it says that this server is no longer the one, so "
        "that what was opened before is replaced; beside what the pool knows",
        or_none(FUNCTION),
        may_be_called=True,
    )
    core_size: Knob = setting(
        None,
        "no connection is retired while the pool is no larger; this and the next three may be "
        "functions, called at use",
        or_none(ANY_WHOLE),
        is_sizing=True,
        may_be_called=True,
    )
    retire_interval: Knob = setting(
        None,
        "surplus connections are closed `retire_quantity` at a time, so many seconds apart, and none "
        "before it has been idle for as long",
        or_none(ANY_SECONDS),
        is_sizing=True,
        may_be_called=True,
    )
    retire_quantity: Knob = setting(
        None,
        "how many are closed at a time; `None`: 1",
        or_none(ANY_WHOLE),
        is_sizing=True,
        may_be_called=True,
    )
    unload_timeout: Knob = setting(
        None,
        "above `core_size` a caller waits so many seconds for a return before a connection is opened "
        "for it",
        or_none(ANY_SECONDS),
        is_sizing=True,
        may_be_called=True,
    )

    fleet: str | None = setting(
        None,
        '`"host"`: one budget of connections for all processes of this host and user; or the path of a '
        "directory: for those that share it",
        FLEET,
        is_final=True,
    )
    fleet_size: int | None = setting(
        None,
        "how many connections all of them may have; each by itself, too, if no cap is given",
        FLEET_SIZE,
    )
    fleet_name: str | None = setting(
        None,
        "pools of one name are one fleet; `None`: those with one database, host, port and user",
        or_none(NAME),
        is_final=True,
    )

    def __post_init__(self) -> None:
        if isinstance(self.max_size, str) and self.max_size == AUTO:
            bound = (self.fleet and self.fleet_size) or AUTO_BOUND
            object.__setattr__(self, "max_size", bound)
            object.__setattr__(self, "auto_cap", True)
        for one in fields(self):
            value = one.metadata["setting"].kind.read(one.name, getattr(self, one.name))
            object.__setattr__(self, one.name, value)
        if self.min_idle > self.max_size:
            raise ConfigError(
                "min_idle", self.min_idle, f"is above max_size={self.max_size:g}; lower it"
            )
        self.policy()

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
        sized = replace(self, max_size=most, min_idle=least, auto_cap=False)
        return replace(sized, recycle=-1, reclaim_after=None)

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
            knob = () if self.breakeven is None else (self.breakeven,)
            if self.sizing == "adaptive":
                return adaptive(*knob)
            if self.sizing == "poisson":
                return poisson(*knob)
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


_FIELDS: Final = {one.name: one.metadata["setting"] for one in fields(PoolConfig)}
_NUMBER: Final = replace(or_none(ANY_WHOLE), takes_none=False)  # which means "not given"
SETTINGS: Final[Mapping[str, Setting]] = {
    **_FIELDS,
    "pool_size": Setting(
        None,
        "with `max_overflow` the hard cap, as in `QueuePool`; 0: none",
        _NUMBER,
    ),
    "max_overflow": Setting(
        None,
        f"is added to `pool_size`; -1: no cap; {DEFAULT_MAX_OVERFLOW} if only that is given",
        _NUMBER,
    ),
    "profile": Setting(
        None,
        "a name of `geventpool.PROFILES`, such as `production`; other settings win over it",
        ANY_NAME,
    ),
}
"""What every way to a pool takes: the fields of `PoolConfig`, and what `make_config` makes of others."""

PoolConfig.__doc__ = explain(PoolConfig.__doc__, _FIELDS)


def shows_settings(door: T) -> T:
    """Has `inspect.signature` and `help` show each setting where a class takes `**settings`."""
    return show(door, SETTINGS, PoolConfig.__annotations__)


def without_not_given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `GeventPool` that were given."""
    return {
        name: value
        for name, value in settings.items()
        if value is not NOT_GIVEN
        and (value is not None or name not in SETTINGS or SETTINGS[name].kind.takes_none)
    }


def make_config(
    *,
    profile: str | None = None,
    pool_size: int | None = None,
    max_overflow: int | None = None,
    max_size: float | str | None = None,
    **settings: Any,
) -> PoolConfig:
    """Puts together what a user gave, a profile and the defaults, in this order of precedence.

    `None` means "not given", except where `PoolConfig` gives it a meaning; there leaving it out does.

    Args:
        profile: a name from `PROFILES`.
        pool_size: as in SQLAlchemy's `QueuePool`: with `max_overflow` it makes the hard cap; 0: none.
            Both may be numbers of any kind, and text.
        max_overflow: as in `QueuePool`; -1: no cap.
        max_size: the hard cap itself, instead of the two; `"auto"`: see `PoolConfig`.
        **settings: fields of `PoolConfig`.

    Raises:
        ConfigError: naming the setting, its value and the cure.
    """
    for name in settings.keys() - SETTINGS.keys():
        import difflib  # for once

        nearest = difflib.get_close_matches(name, SETTINGS, 1)
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
    for name in ("fleet", "fleet_size"):
        settings[name] = SETTINGS[name].or_environments(name, settings.get(name))
    policy = settings.get("sizing")
    if pool_size is not None or max_overflow is not None:
        max_size = _cap(pool_size, max_overflow)
    if max_size is None:
        size = settings["fleet"] and settings["fleet_size"]
        max_size = getattr(policy, "max_size", None) or size or DEFAULT_MAX_SIZE
    if "min_idle" not in settings and getattr(policy, "min_idle", None) is not None:
        settings["min_idle"] = policy.min_idle  # type: ignore[union-attr]
    return PoolConfig(max_size=max_size, **settings)  # type: ignore[arg-type]  # AUTO


def change(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a user has given in all, when new settings are given to a pool that runs.

    The new ones win; what they leave open stays as it was given before. A profile counts as all that it
    sets, and a cap given in one way takes the place of one given in another.

    Raises:
        ConfigError: there is no such profile.
    """
    new = dict(settings)
    profile = new.pop("profile", None)
    if profile is not None:
        new = {**_without(profile_settings(profile), {"echo"}), **new}
    before = dict(given)
    if "max_size" in new:
        new = _without(new, {"pool_size", "max_overflow"} - settings.keys())
        before = _without(before, {"pool_size", "max_overflow"})
    elif new.keys() & {"pool_size", "max_overflow"}:
        before = _without(before, {"max_size"})
    return {**before, **new}


def split_cap(config: PoolConfig, pool_size: int | None) -> tuple[int, int]:
    """`pool_size` and `max_overflow` as `QueuePool` would show them for this configuration."""
    size = config.max_size if pool_size is None else read_number("pool_size", pool_size, "a number")
    if config.max_size == math.inf:
        return 0 if size == math.inf else math.ceil(size), -1
    shown = math.ceil(min(size, config.max_size))
    return shown, int(config.max_size) - shown


def _without(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _cap(pool_size: Any, max_overflow: Any) -> float:
    """What `QueuePool` would open at most."""
    size = read_number("pool_size", 5 if pool_size is None else pool_size, "a number, 0 for no cap")
    overflow = DEFAULT_MAX_OVERFLOW if max_overflow is None else max_overflow
    overflow = read_number("max_overflow", overflow, "a number, -1 for no cap")
    if size == 0 or overflow == -1 or size + overflow > MOST:
        return math.inf
    if size + overflow <= 0:
        name, other = (
            ("max_overflow", "pool_size") if overflow < 0 else ("pool_size", "max_overflow")
        )
        value, beside = (max_overflow, size) if overflow < 0 else (pool_size, overflow)
        raise ConfigError(name, value, f"with {other}={beside} it leaves no room for a connection")
    return math.ceil(size + overflow)
