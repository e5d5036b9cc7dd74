"""What is declared of a setting, and the kinds of values that settings have; `config` declares them."""

from __future__ import annotations

import inspect
import math
import os
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from .errors import ConfigError

NOT_GIVEN: Any = object()
"""The default of an argument for which `None` means something."""

MOST = 10**9
MOST_IN_FLEET = 65_536
"""Connections."""
_FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
}
_RESETS = {
    "smart": "smart",
    "behind": "behind",
    True: "rollback",
    "rollback": "rollback",
    "commit": "commit",
    None: None,
    False: None,
    "none": None,
}

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Kind:
    """What values a setting takes.

    Attributes:
        read: of its name and a value: the value to keep, or a `ConfigError`.
        parse: of a text, as a URL has it: the value; a `ValueError` or `KeyError` if it is none.
            `None`: a text cannot say it.
        wanted: what the text has to be, for the error.
        takes_none: `None` is a value; else, as an argument of `GeventPool`, it means "not given".
    """

    read: Callable[[str, Any], Any]
    parse: Callable[[str], Any] | None = None
    wanted: str = ""
    takes_none: bool = False


@dataclass(frozen=True)
class Setting:
    """What is declared of a setting, beside its name and type.

    Attributes:
        default: its value if it is not given.
        meaning: what it does, for people.
        kind: what values it takes.
        is_sizing: it makes another policy.
        is_final: it cannot be changed while the pool runs.
        may_be_called: its value may be a function, which is called at use.
    """

    default: Any
    meaning: str
    kind: Kind
    is_sizing: bool = False
    is_final: bool = False
    may_be_called: bool = False

    def or_environments(self, name: str, value: Any) -> Any:
        """What was given, else what a variable of the environment says, such as `GEVENTPOOL_FLEET`.

        Raises:
            ConfigError: it cannot be used.
        """
        variable = f"GEVENTPOOL_{name.upper()}"
        text = os.environ.get(variable)
        if value is not None or not text or self.kind.parse is None:
            return self.kind.read(name, value)
        try:
            value = self.kind.parse(text)
        except (ValueError, KeyError):
            raise ConfigError(variable, text, f"give {self.kind.wanted}") from None
        return self.kind.read(variable, value)


def setting(default: Any, meaning: str, kind: Kind, **more: bool) -> Any:
    """A field of `PoolConfig`; see `Setting`."""
    return field(default=default, metadata={"setting": Setting(default, meaning, kind, **more)})


def or_none(kind: Kind) -> Kind:
    """The same, or `None`."""
    parse = kind.parse
    return Kind(
        lambda name, value: None if value is None else kind.read(name, value),
        parse and (lambda text: None if text == "none" else parse(text)),
        f"{kind.wanted} or none",
        takes_none=True,
    )


def seconds(wanted: str, least: float = 0.0) -> Kind:
    """A length of time; the text says which, for the error."""
    return Kind(partial(read_seconds, wanted=wanted, least=least), float, "a number of seconds")


def read_seconds(
    name: str,
    value: Any,
    wanted: str = "a number of seconds, 0 or more",
    least: float = 0.0,
    may_be_endless: bool = True,
) -> Any:
    """A length of time, as it is.

    Raises:
        ConfigError: it is none, or out of range.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and (least <= value <= MOST or (may_be_endless and value == math.inf)):
        return value
    raise ConfigError(name, value, f"give {wanted}")


def read_number(name: str, value: Any, wanted: str) -> float:
    """A number of any kind: `QueuePool` asks nothing else of it. Also text, as an .ini has it.

    Raises:
        ConfigError: it is none.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise ConfigError(name, value, f"give {wanted}")
    return int(number) if number.is_integer() else number


def _read_whole(name: str, value: Any, least: int = 0) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(name, value, "give a whole number")
    if not least <= value <= MOST:
        raise ConfigError(name, value, f"give {least} or more, up to {MOST:,}")
    return value


def _read_cap(name: str, value: Any) -> Any:
    return value if value == math.inf else _read_whole(name, value, 1)


def _read_timeout(name: str, value: Any) -> float:
    timeout = read_number(name, value, "a number of seconds, 0 to never wait, or None")
    return max(0, timeout) if timeout <= MOST else math.inf


def _read_age(name: str, value: Any) -> float:
    if value != value:  # NaN
        return -1
    age = read_number(name, value, "a number of seconds, or -1 for never")
    return -1 if age <= -1 else max(0, age)


def _read_flag(name: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise ConfigError(name, value, "give True or False")
    return value


def _read_reset(name: str, value: Any) -> Any:
    style = getattr(value, "name", None)  # of SQLAlchemy's enum, as old code passes it
    try:
        return _RESETS[style.removeprefix("reset_") if isinstance(style, str) else value]
    except (KeyError, TypeError):
        cure = "give 'smart', 'behind', 'rollback', 'commit' or None"
        raise ConfigError(name, value, cure) from None


def _read_fleet(name: str, value: Any) -> Any:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value == "host" or (isinstance(value, str) and os.path.isabs(value)):
        return value
    more = " (Redis is not supported yet)" if isinstance(value, str) and "://" in value else ""
    cure = f'give "host", or the absolute path of a directory{more}'
    raise ConfigError(name, value, cure)


def _read_fleet_size(name: str, value: Any) -> Any:
    value = _read_whole(name, value, 1)
    if value > MOST_IN_FLEET:
        raise ConfigError(name, value, f"give no more than {MOST_IN_FLEET:,}")
    return value


def _read_function(name: str, value: Any) -> Any:
    if not callable(value):
        raise ConfigError(name, value, "give a function of an error, or None")
    return value


def _read_name(name: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(name, value, "give a name, or None")
    return value


def _read_cancel_deadline(name: str, value: Any) -> Any:
    if value == math.inf:
        raise ConfigError(name, value, "give a number of seconds: a place is not held for ever")
    return read_seconds(name, value, "a number of seconds; 0 to never cancel")


def _parse_cap(text: str) -> float | str:
    return text if text == "auto" else math.inf if text == "inf" else int(text)


def _parse_flag(text: str) -> bool:
    return _FLAGS[text.strip().lower()]


def _keep(_name: str, value: Any) -> Any:
    return value


CAP = Kind(_read_cap, _parse_cap, "a whole number, inf or auto")
WHOLE = Kind(_read_whole, int, "a whole number")
FLEET = or_none(Kind(_read_fleet, str, '"host", or the absolute path of a directory'))
NAME = Kind(_read_name, str, "a name")
FUNCTION = Kind(_read_function)
DEADLINE = Kind(_read_cancel_deadline, float, "a number of seconds")
FLEET_SIZE = or_none(Kind(_read_fleet_size, int, "a whole number"))
FLAG = Kind(_read_flag, _parse_flag, "true or false")

# As `QueuePool` reads them.
TRUTH = Kind(lambda _name, value: bool(value), _parse_flag, "true or false")
TIMEOUT = or_none(Kind(_read_timeout, float, "a number of seconds"))
AGE = Kind(_read_age, float, "a number of seconds")
RESET = Kind(_read_reset, str, "a name", takes_none=True)

# What becomes of them checks them.
ANY_WHOLE = Kind(_keep, int, "a whole number")
ANY_SECONDS = Kind(_keep, float, "a number of seconds")
ANY_NAME = Kind(_keep, str, "a name")


def show(door: T, settings: Mapping[str, Setting], types: Mapping[str, Any]) -> T:
    """Has `inspect.signature` and `help` show the settings where there is a `**settings`.

    Args:
        door: a class whose `__init__` takes them.
        settings: by their names.
        types: those that are known.
    """
    function: Any = door.__init__  # type: ignore[misc]
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    for place, one in enumerate(own):
        if one.name in settings:
            own[place] = one.replace(default=settings[one.name].default)
    own += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default,
            annotation=types.get(name, inspect.Parameter.empty),
        )
        for name, one in settings.items()
        if name not in signature.parameters
    ]
    function.__signature__ = signature.replace(parameters=own)
    door.__doc__ = explain(door.__doc__, settings)
    return door


def explain(doc: str | None, settings: Mapping[str, Setting]) -> str | None:
    """A docstring with a paragraph for each setting in place of that for `**settings`."""

    def paragraphs(found: re.Match[str]) -> str:
        indent = found["indent"]
        return "".join(
            textwrap.indent(
                textwrap.fill(
                    f"{name}: {one.meaning}.",
                    100 - len(indent),
                    subsequent_indent="    ",
                )
                + "\n",
                indent,
            )
            for name, one in settings.items()
        )

    pattern = r"(?m)^(?P<indent> +)\*\*settings:.*\n(?:(?P=indent) +.*\n)*"
    return doc and re.sub(pattern, paragraphs, doc)
