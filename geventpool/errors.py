"""What geventpool raises. Every message carries the figures and names the cure."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

_SECRET = r"(?i:password|passwd|pwd|secret|token)"
# The password of a URL, as far as the last @; what a key of that name has, quoted or not. Whoever makes
# the text may make it long: each word is looked at once, and not again from each of its letters.
_WORD = re.compile(r"\S+")
_IN_URL = re.compile(r"(://[^:@]*):.*@", re.DOTALL)
_BY_KEY = re.compile(
    rf"(?<!\w)(?=\w*?{_SECRET})(\w+['\"]?\s*[=:]\s*)(?!None\b)"
    r"(?:[bB]?'(?:[^'\\]|\\.)*'|[bB]?\"(?:[^\"\\]|\\.)*\"|[^\s,;&)}\]]+)"
)
_NAMES_A_SECRET = re.compile(_SECRET)


def without_passwords(text: str) -> str:
    """Text with `***` for the passwords in URLs, and for those of keys like `password=`."""
    return _BY_KEY.sub(r"\1***", _WORD.sub(lambda word: _without_password(word[0]), text))


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return _IN_URL.sub(r"\1:***@", head + at) + tail if at else url


def printable(text: object) -> str:
    """Text of unknown origin, so that it can neither move a cursor nor add a line to a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def _shown(value: object) -> str:
    """A value that a user gave by mistake, as his error message may show it."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key!r}: {_shown_as(str(key), one)}" for key, one in value.items())
        return f"{{{inside}}}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(_shown, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if isinstance(value, str) and "://" in value:
        value = _without_password(value)
    if isinstance(value, str):
        value = without_passwords(value)  # before `repr` adds quotes and backslashes of its own
    try:
        return without_passwords(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _shown_as(name: str, value: object) -> str:
    return "***" if value is not None and _NAMES_A_SECRET.search(name) else _shown(value)


class GeventPoolError(Exception):
    """Base of every exception that geventpool raises by itself."""


class ConfigError(GeventPoolError, ValueError):
    """A setting cannot be used; raised when the pool is made, before anything is opened.

    Args:
        argument: name of the argument or setting, as the user wrote it.
        value: what was given.
        cure: one sentence: what to give instead.
    """

    def __init__(self, argument: str, value: object, cure: str) -> None:
        super().__init__(f"{argument}={_shown_as(argument, value)}: {cure}")
        self.argument = argument
        self.value = value
        self.cure = cure

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process goes the text of what it may not be able to unpickle, such as a function.
        is_plain = self.value is None or type(self.value) in (bool, int, float, str)
        value = self.value if is_plain else _shown(self.value)
        return _again, (type(self), self.args, self.argument, value, self.cure)


def _again(kind: type[ConfigError], arguments: tuple[Any, ...], *more: Any) -> ConfigError:
    """A `ConfigError` as it was in the process that has pickled it."""
    error = kind.__new__(kind, *arguments)
    error.argument, error.value, error.cure = more
    return error


class PoolTimeout(GeventPoolError):
    """No connection could be had before the caller's deadline.

    Args:
        message: what happened, the figures, the holders, the cure.
        why: `"saturated"`: all connections are lent; `"fleet"`: those of all processes together are
            taken; `"connecting"`: opening one takes too long; `"database down"`: opening one fails;
            `"hub blocked"`: the hub had no turn for most of the wait. Its subclasses have reasons of
            their own.
    """

    def __init__(self, message: str, why: str = "saturated", **more: Any) -> None:
        super().__init__(message, **more)
        self.why = why


class PoolDeadlock(PoolTimeout):
    """Every holder of a connection waits for another one, in this thread's pools: none can come.

    Raised at once, in the caller whose waiting would have closed the ring; once that lets go of what
    it holds, the others go on.
    """


class PoolOverloaded(PoolTimeout):
    """The line is too long (`max_waiting`), or has stood for too long (`shed_after`)."""


class ConnectTimeout(PoolTimeout):
    """An attempt to connect took longer than `connect_timeout`."""


class PoolClosed(GeventPoolError):
    """The pool, or the caller's hold on a connection of it, is no more; or it is a forked parent's."""


class BlockingDriverWarning(UserWarning):
    """The driver blocks the gevent hub; the text names the cure."""


def _refuse_eventlet() -> None:
    """Says what is wrong where gevent could only fail on what eventlet has left of a module.

    Raises:
        ImportError: eventlet has monkey-patched this process.
    """
    patched: Any = getattr(sys.modules.get("eventlet.patcher"), "already_patched", ())
    if "select" in patched or "thread" in patched:
        raise ImportError(
            "geventpool waits by gevent, and eventlet has monkey-patched this process: it can have only "
            "one of them. Call gevent.monkey.patch_all() in place of eventlet.monkey_patch() (gunicorn: "
            "-k gevent, Celery: --pool gevent), or keep SQLAlchemy's own pool beside eventlet"
        )


_refuse_eventlet()  # here, because of all that is ours this module is imported first, before gevent
