"""Calls from other native threads: handed to the hub that owns the pool, and waited for here.

Only the owner's thread ever touches a pool's books. Another thread posts its request to the owner's loop
and waits, in its own hub if it has one, else on a native lock. A program that is not monkey-patched has no
hub that always runs, so there one native thread is started whose hub owns all the pools.
"""

from __future__ import annotations

import _thread
import contextvars
import functools
import logging
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

import gevent
from gevent import Greenlet, get_hub, getcurrent
from gevent._hub_local import get_hub_if_exists
from gevent.hub import MAIN_THREAD_IDENT
from gevent.monkey import get_original, is_module_patched

from ..errors import PoolTimeout
from . import causes, registry
from .clock import HubClock
from .entry import IN_USE, Entry
from .handlers import Handlers
from .shared import NO_HUB
from .waiter import Waiter

T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Any])

log = logging.getLogger("geventpool")

_start_thread: Callable[..., int] = get_original("_thread", "start_new_thread")
_get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_Local: Callable[[], Any] = get_original("_thread", "_local")
_new_lock: Callable[[], Any] = get_original("_thread", "allocate_lock")

# gevent imports these when they are first asked for. Under monkey-patching two threads that make their
# first hubs at once would deadlock on the import locks.
_LOADED = gevent.config.loop, gevent.config.threadpool

_FOR_EVER = 1e8
_GRACE = 1.0

_deciding = _new_lock()  # held while it is decided which thread owns a pool
_service: Any = None  # the hub of our own thread
_service_mailbox: Any = None
_mailboxes: Any = _Local()
_process: object = object()  # another one in a forked child


class Pool(Protocol):
    """What is handed to the hub that owns it; see `ResourcePool`."""

    hub: Any
    mailbox: Any
    handlers: Handlers
    resets: Any

    @property
    def is_here(self) -> bool:
        """Does the calling thread own it?"""

    def acquire(self, timeout: float | None, is_new: bool) -> Entry:
        """Lends an entry."""

    def release(self, entry: Entry, is_clean: bool) -> None:
        """Takes it back."""

    def discard(self, entry: Entry, cause: str) -> None:
        """Closes it instead."""

    def begin_again(self) -> None:
        """Empties it."""


def claim(pool: Pool) -> bool:
    """Does the calling thread own a pool? Its first use decides who does."""
    registry.look_for_fork()
    with _deciding:
        if pool.hub is not NO_HUB and pool.hub.loop is None:
            pool.begin_again()  # that hub was destroyed, and with it whatever it was to do
        if pool.hub is NO_HUB:
            hub = _home()
            if hub is _service and not is_module_patched("socket"):
                pool.handlers = cast(Any, _OffHub(pool.handlers))
            # In a service thread of our own it is there already; else this thread is the owner's.
            pool.mailbox = _service_mailbox if hub is _service else mailbox_here()
            pool.hub = hub
    return pool.is_here


def bare(handlers: Any) -> Any:
    """A pool's own handlers."""
    return handlers.handlers if isinstance(handlers, _OffHub) else handlers


def in_owners_thread(method: M) -> M:
    """A method of a pool that is handed to the hub that owns it, if another thread calls it.

    A finalizer in the hub of another thread, where nothing can be waited for, only posts it.
    """

    @functools.wraps(method)
    def called(pool: Pool, *arguments: Any) -> Any:
        registry.look_for_fork()
        if pool.is_here or claim(pool):
            return method(pool, *arguments)
        if getcurrent() is get_hub_if_exists():
            return pool.mailbox.post(gevent.spawn_raw, method, pool, *arguments)
        return call(pool, partial(method, pool, *arguments), None, lambda _: None)

    return cast(M, called)


def acquire(pool: Pool, timeout: float | None, is_new: bool) -> Entry:
    """`acquire` for a thread that does not own the pool. May switch greenlets, or block the thread."""
    ask: Callable[[], Entry] = partial(pool.acquire, timeout, is_new)
    entry: Entry = call(pool, ask, timeout, partial(pool.release, is_clean=True))
    try:
        pool.handlers.move(entry.resource)
    except BaseException:
        pool.discard(entry, causes.DEAD)
        raise
    return entry


def release(pool: Pool, entry: Entry, is_clean: bool) -> None:
    """`release` for a thread that does not own the pool: resets here, where the resource was used.

    Also of what is not lent: it was reclaimed, or is from before a fork, the parent's; else it is a bug.
    """
    if registry.is_gone(entry):
        return
    if entry.state is not IN_USE:
        raise AssertionError(f"bug: released an entry that is {entry.state}")
    try:
        is_clean = is_clean or pool.handlers.is_clean(entry.resource)
    except BaseException:
        pool.discard(entry, causes.RESET_FAILED)
        raise
    if is_clean or pool.resets.now(entry):
        _tell(pool, partial(_come_home, pool, entry))


def _come_home(pool: Pool, entry: Entry) -> None:
    if entry.state is not IN_USE:
        return
    try:
        pool.handlers.move(entry.resource)
    except Exception:
        log.exception("%r: error while moving %r to this thread", pool, entry.resource)
        pool.discard(entry, causes.DEAD)
    else:
        pool.release(entry, is_clean=True)


def call(
    pool: Pool,
    function: Callable[[], T],
    timeout: float | None,
    undo: Callable[[T], Any],
) -> T:
    """Calls a function in a greenlet of the owner's hub and waits for it. May switch.

    Args:
        pool: whose owner.
        function: may switch greenlets there.
        timeout: seconds that the function takes at most by itself; `None`: any time.
        undo: called there with the result, if the caller was killed before it had it.

    Raises:
        PoolTimeout: the owner's hub did not run in time.
        BaseException: what the function raised.
    """
    seconds = _FOR_EVER if timeout is None else timeout + _GRACE
    errand = _Errand(function, undo)
    try:
        pool.mailbox.post(errand.start)
        if not errand.is_ready.wait(seconds):
            raise PoolTimeout(
                f"the thread that owns {pool!r} did not run its gevent hub for {seconds:.3g} s: "
                "something there computes or blocks without yielding",
                "hub blocked",
            )
    except BaseException:
        pool.mailbox.post(errand.leave)
        raise
    if errand.error is not None:
        raise errand.error
    return errand.value


def _tell(pool: Pool, function: Callable[[], object]) -> None:
    """Has a function called in the owner's hub, where it must not switch. May switch.

    Waits a moment until it was called, so that the caller sees the effect; it will be in any case.
    """
    signal = _Signal()

    def do() -> None:
        try:
            function()
        finally:
            signal.send()

    pool.mailbox.post(do)
    signal.wait(_GRACE)


class Mailbox:
    """What other threads want done in a hub.

    Not `loop.run_callback_threadsafe`: called from elsewhere, that changes the loop's count of
    references beside the loop's own changes, and a count that is wrong ends the loop under whoever waits.
    Of libev only `ev_async_send` may be called from other threads.

    To be made in the hub's own thread.
    """

    def __init__(self, hub: Any) -> None:
        self._letters: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._hub = hub
        self._bell = hub.loop.async_(ref=False)
        self._bell.start(self._open)
        # libev sees by itself that it runs in a child; no timer and no socket comes before this.
        self._fork = hub.loop.fork(ref=False)
        self._fork.start(registry.look_for_fork)

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Has a function called in the hub, where it must not switch. Never switches."""
        self._letters.append((function, arguments))
        if self._hub.loop is not None:  # else that thread is at its end
            self._bell.send()

    def forget(self) -> None:
        """The process has forked: what is not done yet, threads of the parent wait for."""
        self._letters.clear()

    def _open(self) -> None:
        while self._letters:
            function, arguments = self._letters.popleft()
            try:
                function(*arguments)
            except BaseException:
                self._hub.handle_error(function, *sys.exc_info())


def mailbox_here() -> Mailbox:
    """The mailbox of the calling thread's hub."""
    box: Mailbox | None = getattr(_mailboxes, "here", None)
    hub = get_hub()
    if box is None or box._hub is not hub:
        box = _mailboxes.here = Mailbox(hub)
    return box


class _Signal:
    """Sent once, from any thread, to the one that made it."""

    def __init__(self) -> None:
        self._mailbox = None if get_hub_if_exists() is None else mailbox_here()
        if self._mailbox is None:  # a hub, once made, stays with its thread
            self._lock = _new_lock()
            self._lock.acquire()
        else:
            self._waiter: Waiter = Waiter()

    def send(self) -> None:
        """Ends the wait. Never switches."""
        if self._mailbox is None:
            self._lock.release()
        else:
            self._mailbox.post(self._waiter.serve, True)

    def wait(self, seconds: float) -> bool:
        """Waits. True: the signal has come. Switches greenlets, or blocks a thread without a hub."""
        if self._mailbox is None:
            return bool(self._lock.acquire(timeout=min(seconds, _thread.TIMEOUT_MAX)))
        return self._waiter.wait(HubClock(), seconds)


class _Errand(Generic[T]):
    """One call. What its methods decide upon belongs to the thread in which they all run."""

    def __init__(self, function: Callable[[], T], undo: Callable[[T], Any]) -> None:
        self._function = function
        self._undo = undo
        self._process = _process
        self._greenlet: Any = None
        self._is_done = False
        self._is_left = False
        self.is_ready = _Signal()
        self.value: T
        self.error: BaseException | None = None

    def start(self) -> None:
        self._greenlet = gevent.spawn_raw(self._run)

    def leave(self) -> None:
        """The caller was killed, or waits no more."""
        self._is_left = True
        if not self._is_done:
            self._greenlet.throw(gevent.GreenletExit)
        elif self.error is None:
            gevent.spawn_raw(self._undo, self.value)

    def _run(self) -> None:
        registry.look_for_fork()
        if self._process is not _process:
            return  # who has asked is a thread of the parent
        try:
            self.value = self._function()
        except BaseException as error:
            self.error = error
        self._is_done = True
        if not self._is_left:
            self.is_ready.send()
        elif self.error is None:
            self._undo(self.value)


class _OffHub:
    """Handlers whose blocking parts run in native threads, because nothing is monkey-patched."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handlers, name)

    def open(self) -> Any:
        """In a thread, in the context of the one who wants it."""
        return off_hub(contextvars.copy_context().run, self.handlers.open)

    def close(self, resource: Any, cause: str) -> object:
        """In a thread."""
        return off_hub(self.handlers.close, resource, cause)

    def check(self, resource: Any) -> bool:
        """In a thread."""
        return bool(off_hub(self.handlers.check, resource))

    def reset(self, resource: Any) -> bool:
        """In a thread."""
        return bool(off_hub(self.handlers.reset, resource))


def off_hub(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls what may block, in another native thread if it would block the hub. May switch."""
    hub = get_hub_if_exists()
    if hub is None or hub is not _service or is_module_patched("socket"):
        return function(*arguments)  # it does not block, or in a thread of the program, which may
    value, error = hub.threadpool.apply(_caught, (function, arguments))
    if error is not None:
        raise error
    return value


def _caught(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    """What came of a call. gevent would print an error before it reaches whom it concerns."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error


def _forget_threads() -> None:
    global _service, _service_mailbox, _deciding, _process
    registry.keep_for_good((_service, _service_mailbox))  # the thread is not here any more
    _service, _service_mailbox, _deciding, _process = None, None, _new_lock(), object()
    box: Mailbox | None = getattr(_mailboxes, "here", None)
    if box is not None:
        box.forget()


registry.at_fork(_forget_threads)


def _home() -> Any:
    """The hub that is to own a pool first used here: this thread's, if it can be relied on to run.

    Called with `_deciding` held.
    """
    uses_gevent = is_module_patched("socket") or isinstance(getcurrent(), Greenlet)
    return get_hub() if uses_gevent and _get_ident() == MAIN_THREAD_IDENT else _service_hub()


def _service_hub() -> Any:
    global _service, _service_mailbox
    if _service is None:
        is_ready = _new_lock()
        is_ready.acquire()
        found: list[Any] = []
        _start_thread(_serve, (found, is_ready))
        is_ready.acquire()
        if isinstance(found[0], BaseException):
            raise found[0]
        _service, _service_mailbox = found
    return _service


def _serve(found: list[Any], is_ready: Any) -> None:
    """Runs a hub for as long as the process lives; native threads of this kind keep none alive."""
    try:
        hub = get_hub()
        keeps_running = hub.loop.async_()
        keeps_running.start(lambda: None)
        found.extend((hub, mailbox_here()))
    except BaseException as error:
        found.append(error)
        return
    finally:
        is_ready.release()
    while True:
        hub.switch()
