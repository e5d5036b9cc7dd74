"""One TLS context for equal settings of PyMySQL, which would build one for each connect."""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

_FILES = ("ca", "cert", "key")
_MOST_CONTEXTS = 32
_MEANING = (
    "verify_mode",
    "check_hostname",
    "verify_flags",
    "options",
    "minimum_version",
    "maximum_version",
)


def share_tls_contexts(connection_class: Any) -> None:
    """Has connections with equal TLS settings share one context. Idempotent.

    What the settings mean is left to PyMySQL: its own method makes the context, once. A file that is
    named by a setting and has changed since makes for other settings. Where anything is not as expected,
    the method is called as ever.
    """
    make = getattr(connection_class, "_create_ssl_ctx", None)
    if make is None or getattr(make, "_is_shared", False):
        return
    contexts: OrderedDict[object, tuple[object, ssl.SSLContext]] = OrderedDict()

    @functools.wraps(make)
    def _create_ssl_ctx(self: Any, sslp: Any) -> Any:
        # A subclass with a method of its own may go on to change what it gets from here.
        is_own = getattr(type(self)._create_ssl_ctx, "_is_shared", False)
        key = _key(sslp) if is_own else None
        if key is None:
            return make(self, sslp)
        kept, context = contexts.get(key, (None, None))
        if context is None or kept != _meaning(context):
            context = make(self, sslp)
            contexts[key] = _meaning(context), context
            if len(contexts) > _MOST_CONTEXTS:
                contexts.popitem(last=False)
        return context

    shared: Callable[..., Any] = _create_ssl_ctx
    shared._is_shared = True  # type: ignore[attr-defined]
    connection_class._create_ssl_ctx = shared


def _key(sslp: Any) -> object:
    """Equal for equal settings and unchanged files; `None` if that cannot be told."""
    if type(sslp) is not dict or sslp.get("capath") is not None:
        return None  # a file of a directory may change, and the directory does not show it
    import ssl  # not above: it is dear, and gevent wants to patch it before it is used

    paths = ssl.get_default_verify_paths()
    files = [sslp.get(name) for name in _FILES] + [paths.cafile, paths.capath]
    try:
        key = (
            ssl.SSLContext,  # another one once gevent has patched
            # The types too, because True == 1 == 1.0, and PyMySQL tells them apart.
            frozenset((name, type(value), value) for name, value in sslp.items()),
            tuple(None if file is None else _stamp(file) for file in files),
        )
        hash(key)
    except (OSError, TypeError, ValueError):
        return None
    return key


def _meaning(context: ssl.SSLContext) -> object:
    """What whoever has a connection's `ctx` may have changed for all that share it."""
    return [getattr(context, name, None) for name in _MEANING]


def _stamp(path: Any) -> tuple[int, int, int, int]:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
