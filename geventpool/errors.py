"""What geventpool raises. Every message carries the figures and names the cure."""

from __future__ import annotations


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
        super().__init__(f"{argument}={value!r}: {cure}")
        self.argument = argument
        self.value = value
        self.cure = cure


class PoolTimeout(GeventPoolError):
    """No connection could be had before the caller's deadline."""


class PoolClosed(GeventPoolError):
    """The pool, or the caller's hold on a connection of it, is no more; or it is a forked parent's."""


class WrongThread(GeventPoolError):
    """A pool was used from a native thread other than the one whose hub owns it."""


class BlockingDriverWarning(UserWarning):
    """The driver blocks the gevent hub; the text names the cure."""
