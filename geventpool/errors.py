"""What geventpool raises. Every message carries the figures and names the cure."""

from __future__ import annotations

import re
import sys
from typing import Any

# The password of a URL, as far as the last @; and whatever a key of that name has.
_IN_URL = re.compile(r"(://[^\s/:@]*):\S*@")
_BY_KEY = re.compile(
    r"(?i)(\w*(?:password|passwd|pwd|secret|token)\w*['\"]?\s*[=:]\s*)"
    r"(?!None\b)(?:'[^']*'|\"[^\"]*\"|[^\s,;&)}\]'\"]+)"
)


def without_passwords(text: str) -> str:
    """Text with `***` for the passwords in URLs, and for those of keys like `password=`."""
    return _BY_KEY.sub(r"\1***", _IN_URL.sub(r"\1:***@", text))


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
        super().__init__(f"{argument}={without_passwords(repr(value))}: {cure}")
        self.argument = argument
        self.value = value
        self.cure = cure


class PoolTimeout(GeventPoolError):
    """No connection could be had before the caller's deadline.

    Args:
        message: what happened, the figures, the holders, the cure.
        why: `"saturated"`: all connections are lent; `"connecting"`: opening one takes too long;
            `"database down"`: opening one fails; `"hub blocked"`: the hub had no turn for most of
            the wait. Its subclasses have reasons of their own.
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
