"""Which connections have hung up? No round trip, no timer, no work at a checkout or a return.

Each hub has one epoll (Linux) in which the socket of each of its pools' connections is registered once,
when it is opened, for nothing but the peer's hanging up, and once for each change: queries cause no event.
The hub watches the epoll's own descriptor. Not the sockets: libev ends the process if a descriptor that it
watches is closed, while one that is closed just vanishes from an epoll.

That is for connections that nobody asks for. A borrower does not rely on it, because the hub may have had
no turn: it looks at the socket itself, which also tells of last words that come before the hanging up.
"""

from __future__ import annotations

import _socket
import contextlib
import logging
import os
import select
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod, ref

from gevent import get_hub
from gevent._hub_local import get_hub_if_exists
from gevent.monkey import get_original

from .entry import Entry
from .handlers import Handlers
from .registry import at_fork, keep_for_good, look_for_fork, unforked

log = logging.getLogger("geventpool")

_READ = 1  # libev's EV_READ
_RDHUP = getattr(select, "POLLRDHUP", 0)
_HANGUP = _RDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL
_PEEK = _socket.MSG_PEEK | _socket.MSG_DONTWAIT

FEW = 8
"""Events that are asked for at once: a call makes room for so many."""

MOMENT = 0.001
"""Seconds for which a look at a socket holds. What hangs up is looked for at each borrow all the same."""

# gevent's own `poll` would switch, and it takes `epoll` away from a program.
_new_poll: Callable[[], select.poll] = get_original("select", "poll")
_Local: Callable[[], Any] = get_original("_thread", "_local")
try:
    _new_epoll: Callable[[], Any] | None = get_original("select", "epoll")
    _HANGS_UP = select.EPOLLRDHUP | select.EPOLLET
except AttributeError:  # not Linux: what has hung up is found when it is asked for
    _new_epoll, _HANGS_UP = None, 0

_watches = _Local()

Tell = Callable[[Entry], object]


def look(fd: int) -> bytes | None:
    """What an idle socket has to tell, without taking it. Never switches.

    Returns:
        None: nothing; b"": the peer has hung up; else up to 16 of the bytes that wait to be read.
    """
    ready = _poll_for(fd).poll(0)
    if not ready:
        return None
    if ready[0][1] & _HANGUP:
        return b""
    try:
        was_blocking = os.get_blocking(fd)
        peeked = _socket.socket(fileno=fd)
    except OSError:
        return b""
    try:
        return peeked.recv(16, _PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
    finally:
        peeked.detach()
        os.set_blocking(fd, was_blocking)  # `socket.setdefaulttimeout` may have changed it


def _poll_for(fd: int) -> select.poll:
    poll = _new_poll()
    poll.register(fd, select.POLLIN | _RDHUP)
    return poll


def watch(entry: Entry, handlers: Handlers, tell: WeakMethod[Tell]) -> None:
    """Learns which socket an entry has now, and has the hub tell when that hangs up. Never switches.

    Args:
        entry: the entry; its resource is open.
        handlers: know its socket.
        tell: called with the entry, whatever its state; it must not switch.
    """
    leave(entry)
    try:
        entry.socket_of = handlers.socket_of(entry.resource)
        handlers.on_reconnect(entry.resource, _Reconnected(entry))
        fd = handlers.fileno(entry.resource)
        if fd is None or entry.socket_of is None:
            return
        entry.socket = entry.socket_of(entry.resource)
        entry.fd, entry.tell = fd, tell
    except Exception:  # a driver's surprise must not cost the place: ask before it is lent
        log.exception("cannot watch %r", entry.resource)
        entry.is_suspect = True
        return
    try:
        watch = _watch_here()
        if watch is not None:
            watch.add(entry)
    except OSError:  # no descriptor is left for the epoll, or this one cannot be in it
        log.debug("the hub cannot watch %r", entry.resource, exc_info=True)


class _Reconnected(ref[Entry]):
    """Called when an entry's connection has got another socket by itself. Keeps the entry weakly."""

    __slots__ = ()

    def __call__(self) -> None:
        entry = super().__call__()
        if entry is not None:
            entry.is_suspect = True  # whoever takes it back, looks


def leave(entry: Entry) -> None:
    """Ceases to watch an entry: to be called before its socket is closed. Never switches."""
    if entry.watch is not None:
        entry.watch.remove(entry)
    entry.watch, entry.fd, entry.socket_of, entry.socket = None, -1, None, None
    entry.quiet_until = 0.0


def is_quiet(entry: Entry, now: float) -> bool:
    """May a lent entry, which has a socket, be used without a second look? Never switches.

    Looks what has hung up in the hub's epoll, and tells of it. That a server speaks before it hangs up,
    as PostgreSQL does some milliseconds before, is seen by a look at the socket itself.
    """
    watch = entry.watch
    try:
        if watch is not None:
            events = watch.poll(0, FEW)
            if events:
                watch.tell(events)  # perhaps of this one
        # As in `has_same_socket`, for one frame less.
        if entry.is_suspect or entry.socket_of(entry.resource) != entry.socket:
            return False
    except Exception:  # it has none any more
        return False
    if now >= entry.quiet_until:
        if _poll_for(entry.fd).poll(0):
            return False
        if watch is not None:
            entry.quiet_until = now + MOMENT
    return True


def has_same_socket(entry: Entry) -> bool:
    """Has it the socket that is known? It may have reconnected by itself, or been closed."""
    try:
        return entry.socket_of is None or bool(entry.socket_of(entry.resource) == entry.socket)
    except Exception:  # it has none any more
        return False


def is_dead(entry: Entry, handlers: Handlers) -> bool:
    """Looks what the socket has to tell. Never switches.

    Marks the entry as suspect if what it sees is ambiguous.
    """
    if entry.fd < 0:
        return False
    try:
        fd = handlers.fileno(entry.resource)
        told = b"" if fd is None else look(fd)
        if told is None:
            return False
        if told == b"" or handlers.means_hangup(entry.resource, told):
            return True
    except Exception:  # a driver's surprise
        log.exception("cannot look at %r", entry.resource)
    entry.is_suspect = True
    return False


class Watch:
    """The epoll of the calling thread's hub, in this process.

    Attributes:
        hub: the hub.
        poll: the epoll's: what has hung up since it was last asked.

    What it tells of a number may be about a socket that had it before: whoever is told, looks.
    """

    def __init__(self, new_epoll: Callable[[], Any]) -> None:
        self.hub = get_hub()
        self._followed: dict[int, ref[Entry]] = {}  # weak, so that nothing is kept alive
        self._io: Any = None
        self._epoll = new_epoll()
        self.poll: Callable[[int, int], list[tuple[int, int]]] = self._epoll.poll
        self._io = new_reader(self._epoll.fileno())
        self._io.start(_on_ready, ref(self))

    def add(self, entry: Entry) -> None:
        """Registers an entry's socket."""
        fd = entry.fd
        try:
            self._epoll.register(fd, _HANGS_UP)
        except FileExistsError:
            self._epoll.modify(fd, _HANGS_UP)  # tells once more if it has hung up meanwhile
        entry.watch = self
        self._followed[fd] = ref(entry)

    def remove(self, entry: Entry) -> None:
        """Takes an entry's socket out again, unless its number is another entry's by now."""
        followed = self._followed.get(entry.fd)
        if followed is None or followed() is not entry:
            return
        del self._followed[entry.fd]
        if unforked:  # else the epoll is the parent's, too
            with contextlib.suppress(OSError):  # it was closed
                self._epoll.unregister(entry.fd)

    def on_ready(self) -> None:
        """Something has hung up. Runs in the hub."""
        if not unforked:  # the inherited epoll is the parent's, too
            look_for_fork()
            return
        self.tell(self.poll(0, FEW))

    def tell(self, events: list[tuple[int, int]]) -> None:
        """Tells the pools what `poll` has returned, and what is left. Never switches."""
        while events:
            for fd, _ in events:
                followed = self._followed.get(fd)
                if followed is None:
                    continue
                entry = followed()
                tell = None if entry is None else entry.tell()
                if entry is None or tell is None:
                    del self._followed[fd]
                else:
                    tell(entry)
            events = self.poll(0, FEW)

    def end_in_child(self) -> None:
        """Lets go of the parent's epoll."""
        if self._io is not None:
            end_in_child(self.hub, self._io, self.end)

    def end(self) -> None:
        """Lets go of the epoll, which may be the parent's: nothing in it is touched."""
        io, self._io = self._io, None
        if io is not None:
            io.stop()
            io.close()
            self._epoll.close()

    def __del__(self) -> None:
        # In another thread, or after the hub's end, the watcher is out of bounds; nobody runs it.
        if get_hub_if_exists() is self.hub and self.hub.loop is not None:
            self.end()


def new_reader(fd: int) -> Any:
    """A watcher of the calling thread's hub, not started yet, which keeps no loop alive."""
    io = get_hub().loop.io(fd, _READ, ref=False)
    shared = getattr(io, "_watcher_ref", None)
    if shared is not None:  # with libuv gevent does not pass `ref` on to the watcher of the number
        shared.ref = False
    return io


def end_in_child(hub: Any, io: Any, end: Callable[[], object]) -> None:
    """Ends the watcher of a parent's descriptor, in a forked child. Never switches.

    libuv takes a watcher out of its own epoll at once, and until `gevent.reinit` has run, that is the
    parent's, too, which would be told of nothing any more: so there this waits for the hub's next turn.

    Args:
        hub: the watcher's; if it is another thread's, that is not here any more.
        io: the watcher; nothing is called by it from now on.
        end: stops and closes it.
    """
    if not is_libuv(hub.loop):
        end()
        return
    io.callback = _ignore
    keep_for_good(io)
    if hub is get_hub_if_exists():
        hub.loop.run_callback(end)


def is_libuv(loop: Any) -> bool:
    """Is a hub's loop libuv's? `None`, of a hub that was destroyed, is not."""
    return "libuv" in type(loop).__module__


def _ignore(*_: object) -> None:
    """What the parent is told."""


def _on_ready(watch_ref: ref[Watch]) -> None:
    watch = watch_ref()
    if watch is not None:
        watch.on_ready()


def _watch_here() -> Watch | None:
    """The calling thread's; `None` where there is no epoll."""
    watch: Watch | None = getattr(_watches, "here", None)
    if watch is None or watch.hub is not get_hub():
        _begin_again()
        watch = _watches.here = None if _new_epoll is None else Watch(_new_epoll)
    return watch


def _begin_again() -> None:
    """In the child of a fork, or with another hub. The inherited epoll is its parent's, too."""
    watch: Watch | None = getattr(_watches, "here", None)
    _watches.here = None
    if watch is not None and watch.hub is get_hub_if_exists():
        watch.end_in_child()


at_fork(_begin_again)
