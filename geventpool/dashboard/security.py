"""Who may look: a token for whoever is not on this machine, and names of hosts that are no trap."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import time
from collections import OrderedDict
from typing import Final

from ..errors import ConfigError

VARIABLE: Final = "GEVENTPOOL_DASHBOARD_TOKEN"
COOKIE: Final = "geventpool_dashboard"
_SHORTEST: Final = 16
_TRIES, _WINDOW = 10, 60.0
_MOST_ADDRESSES: Final = 1000

HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
"""With each answer: nothing is loaded from elsewhere, no inline script runs, no other page frames it."""


def is_loopback(host: str) -> bool:
    """Is it a name or an address of this machine that only it can reach?"""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def token_from_environment() -> str | None:
    """The token that `GEVENTPOOL_DASHBOARD_TOKEN` gives.

    Raises:
        ConfigError: it is too short to keep anybody out.
    """
    token = os.environ.get(VARIABLE)
    if token and len(token) < _SHORTEST:
        raise ConfigError(VARIABLE, token, f"give at least {_SHORTEST} characters, or none")
    return token or None


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(32)


class Gate:
    """Lets in who knows the token.

    Args:
        token: what has to be known; `None`: nothing, but the page must have been asked for by a name of
            this machine, so that no other web site can have its visitors' browsers read it.
    """

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    @property
    def wants_token(self) -> bool:
        """Is there one?"""
        return self._token is not None

    @property
    def cookie(self) -> str:
        """What a browser keeps, from which the token cannot be told."""
        assert self._token is not None
        return hmac.new(self._token, COOKIE.encode(), hashlib.sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Is it the token? In constant time."""
        return self._token is not None and hmac.compare_digest(
            given.encode("utf-8", "replace"), self._token
        )

    def is_cookie(self, given: str) -> bool:
        """Is it the cookie? In constant time."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.cookie.encode())

    def is_name_of_this_machine(self, host_header: str) -> bool:
        """Without a token: was the page asked for by a name that no other web site can have?"""
        host = host_header
        if not host.endswith("]"):
            host = host.rpartition(":")[0] or host
        return is_loopback(host)

    def is_locked_out(self, address: str) -> bool:
        """Has that address failed too often in the last minute?"""
        since = time.monotonic() - _WINDOW
        failures = [at for at in self._failures.get(address, ()) if at > since]
        return len(failures) >= _TRIES

    def failed(self, address: str) -> None:
        """A wrong token came from there."""
        since = time.monotonic() - _WINDOW
        kept = [at for at in self._failures.pop(address, ()) if at > since]
        self._failures[address] = [*kept, time.monotonic()][-_TRIES:]
        while len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)
