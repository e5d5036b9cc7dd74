"""What drivers' files ask of sockets and do to them, without switching greenlets."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import gevent
from gevent.monkey import get_original
from gevent.socket import SHUT_WR

_HANGUP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL
# gevent's own `poll` would switch, and its own socket belongs to one hub.
_new_poll: Callable[[], select.poll] = get_original("select", "poll")
_Socket: Any = get_original("socket", "socket")


def python_fileno(sock: Any) -> int | None:
    """The number of a Python socket; `None` if it is closed or there is none."""
    if sock is None:
        return None
    number = python_fileno_of(sock)()
    return number if number >= 0 else None


def python_fileno_of(sock: Any) -> Callable[[], int]:
    """What tells a Python socket's number, without gevent's own call around it; below 0: closed."""
    inner: Callable[[], int] | None = getattr(getattr(sock, "_sock", None), "fileno", None)
    return sock.fileno if inner is None else inner


def has_hung_up(fileno: int) -> bool:
    """Has the peer closed its side, whatever it has said before? Never switches."""
    poll = _new_poll()
    poll.register(fileno, getattr(select, "POLLRDHUP", 0))
    ready = poll.poll(0)
    return bool(ready) and bool(ready[0][1] & _HANGUP)


def hang_up(fileno: int, how: int = SHUT_WR) -> None:
    """Tells the peer that nothing more will be said on this socket. Never switches.

    Args:
        fileno: the socket.
        how: `SHUT_RDWR`: nothing more is listened to, either.
    """
    sock = _Socket(fileno=fileno)
    try:
        sock.setblocking(False)
        sock.shutdown(how)
    except OSError:
        pass  # the peer was first
    finally:
        sock.detach()


def move_socket(sock: Any) -> None:
    """Rebinds one of gevent's sockets, plain or TLS, to the calling thread's hub. Never switches.

    Whatever else it is, or if it is not built as expected, it is left alone.
    """
    if not hasattr(sock, "hub"):
        return  # before this thread is given a hub: what forks without gevent's knowledge has better none
    hub = gevent.get_hub()
    try:
        if sock.hub is hub or sock._read_event is None or sock._write_event is None:
            return
        fileno = sock.fileno()
        if fileno < 0:
            return
        # The old ones, which nobody waits for, go with their last reference: they are another thread's.
        events = hub.loop.io(fileno, 1), hub.loop.io(fileno, 2)
    except AttributeError:
        return
    sock.hub = hub
    sock._read_event, sock._write_event = events


def is_tls(sock: Any) -> bool:
    """Is it a Python socket that speaks TLS (whose alerts and tickets look like any data)?"""
    return hasattr(sock, "do_handshake")
