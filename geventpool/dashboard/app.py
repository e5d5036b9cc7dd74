"""The page as a WSGI application: routes, who may see them, and one stream of news for each browser."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from . import export
from .collector import Collector
from .render import render_live, render_login, render_page
from .security import COOKIE, HEADERS, Gate
from .views import VIEWS, Query

log = logging.getLogger("geventpool.dashboard")

_STATIC: Final = Path(__file__).with_name("static")
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES: Final = {
    f"/static/{file.name}": (_TYPES[file.suffix], file.read_bytes())
    for file in sorted(_STATIC.iterdir())
    if file.suffix in _TYPES
}
_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"
_MOST_STREAMS: Final = 50
_STREAM_MESSAGES: Final = 600  # then the browser comes again, so that a server that ends may end
_SILENCE: Final = 15.0
_LONGEST_FORM: Final = 4096
_MOST_PARAMETERS: Final = 30

StartResponse = Callable[..., Any]
Environ = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is sent."""

    status: str
    content_type: str
    body: Iterable[bytes]
    headers: tuple[tuple[str, str], ...] = ()


def _text(status: str, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", [text.encode()])


class Page:
    """A WSGI application.

    Args:
        collector: what is shown; it is started with the first request, so that a fork takes none along.
        gate: who may look.
    """

    def __init__(self, collector: Collector, gate: Gate) -> None:
        self.collector = collector
        self.gate = gate
        self._streams = 0
        self._rendered: dict[tuple[str, Query, str], str] = {}
        self._rendered_number = -1

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers who knows the token."""
        return self.answer(environ, start_response, is_known=False)

    def answer(
        self, environ: Environ, start_response: StartResponse, *, is_known: bool
    ) -> Iterable[bytes]:
        """Answers. May switch greenlets.

        Args:
            environ: WSGI's.
            start_response: WSGI's.
            is_known: the application that the page is part of says that this visitor may look.
        """
        try:
            answer = self._answer(environ, is_known)
        except Exception:
            log.exception("the dashboard could not answer")
            answer = _text("500 Internal Server Error", "The dashboard's log says why.\n")
        headers = [("Content-Type", answer.content_type), *HEADERS, *answer.headers]
        start_response(answer.status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else answer.body

    def _answer(self, environ: Environ, is_known: bool) -> Answer:
        path, method = environ.get("PATH_INFO", "") or "/", environ["REQUEST_METHOD"]
        if not is_known:
            refused = self._refuse(environ, path, method)
            if refused is not None:
                return refused
        if method not in ("GET", "HEAD"):
            return _text("405 Method Not Allowed", "Only GET.\n")
        if path in _FILES:
            content_type, body = _FILES[path]
            return Answer("200 OK", content_type, [body])
        parameters = _parameters(environ.get("QUERY_STRING", ""))
        query = Query.of(parameters)
        self.collector.start()
        self.collector.refresh()
        name = path.strip("/") or "fleet"
        if name in VIEWS:
            return self._page(name, query, environ)
        if name == "stream":
            view = parameters.get("view", "")
            return self._stream(view if view in VIEWS else "fleet", query, environ)
        if name.startswith("api/") and name.removeprefix("api/") in VIEWS:
            found = VIEWS[name.removeprefix("api/")](self.collector, query)
            return Answer("200 OK", _JSON, [json.dumps(found).encode()])
        if name in export.KINDS:
            return _download(name, export.KINDS[name](self.collector, query))
        return _text("404 Not Found", "There is no such page.\n")

    def _refuse(self, environ: Environ, path: str, method: str) -> Answer | None:
        """Whoever does not know the token; `None`: he does, or there is none."""
        gate = self.gate
        if not gate.wants_token:
            if gate.is_name_of_this_machine(environ.get("HTTP_HOST", "")):
                return None
            return _text("403 Forbidden", "Ask for this page by the name localhost.\n")
        if gate.is_cookie(_cookie(environ)):
            return None
        address = str(environ.get("REMOTE_ADDR", ""))
        if gate.is_locked_out(address):
            return _text("429 Too Many Requests", "Too many wrong tokens: wait a minute.\n")
        scheme, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        given, is_browser = bearer, False
        if scheme.lower() != "bearer":
            is_browser = True
            if path == "/login" and method == "POST":
                given = _form(environ).get("token", "")
            else:
                given = _parameters(environ.get("QUERY_STRING", "")).get("token", "")
        if gate.is_token(given):
            return self._let_in(environ, path) if is_browser else None
        if given:
            gate.failed(address)
        base = environ.get("SCRIPT_NAME", "")
        return Answer("401 Unauthorized", _HTML, [render_login(base, bool(given)).encode()])

    def _let_in(self, environ: Environ, path: str) -> Answer:
        """Has the browser remember, and takes the token out of its address line."""
        base = environ.get("SCRIPT_NAME", "")
        kept = _parameters(environ.get("QUERY_STRING", ""))
        kept.pop("token", None)
        known = path if path.strip("/") in VIEWS else "/"
        where = f"{base}{known}" + (f"?{urlencode(kept)}" if kept else "")
        secure = "; Secure" if environ.get("wsgi.url_scheme") == "https" else ""
        cookie = f"{COOKIE}={self.gate.cookie}; Path={base or '/'}; HttpOnly; SameSite=Lax{secure}"
        headers = (("Location", where), ("Set-Cookie", cookie))
        return Answer("303 See Other", "text/plain; charset=utf-8", [b""], headers)

    def _page(self, name: str, query: Query, environ: Environ) -> Answer:
        base = environ.get("SCRIPT_NAME", "")
        live = self._live(name, query, base)
        body = render_page(name, query, base, live, self.collector.now)
        return Answer("200 OK", _HTML, [body.encode()])

    def _live(self, name: str, query: Query, base: str) -> str:
        """What changes on a page; rendered once for all browsers that see the same."""
        if self._rendered_number != self.collector.number:
            self._rendered.clear()
            self._rendered_number = self.collector.number
        key = (name, query, base)
        if key not in self._rendered:
            self._rendered[key] = render_live(name, query, base, VIEWS[name](self.collector, query))
        return self._rendered[key]

    def _stream(self, name: str, query: Query, environ: Environ) -> Answer:
        if self._streams >= _MOST_STREAMS:
            headers = (("Retry-After", "10"),)
            return Answer("503 Service Unavailable", "text/plain", [b"Too many.\n"], headers)
        headers = (("X-Accel-Buffering", "no"),)
        base = environ.get("SCRIPT_NAME", "")
        messages = self._messages(name, query, base)
        return Answer("200 OK", "text/event-stream; charset=utf-8", messages, headers)

    def _messages(self, name: str, query: Query, base: str) -> Iterator[bytes]:
        """One message a second at most, and none if nothing has changed."""
        self._streams += 1
        try:
            yield b"retry: 1000\n\n"
            number, before = -1, ""
            for _ in range(_STREAM_MESSAGES):
                if not self.collector.wait(number, _SILENCE):
                    yield b": nothing new\n\n"
                    continue
                number = self.collector.number
                try:
                    live = self._live(name, query, base)
                except Exception:  # the browser comes again
                    log.exception("the dashboard could not render %s", name)
                    return
                said = {"at": self.collector.now.at, "html": "" if live == before else live}
                before = live
                yield b"data: " + json.dumps(said).encode() + b"\n\n"
        finally:
            self._streams -= 1


def _download(name: str, body: Iterable[bytes]) -> Answer:
    content_type = _JSON if name.endswith(".json") else "text/csv; charset=utf-8"
    headers = (("Content-Disposition", f'attachment; filename="geventpool-{name}"'),)
    return Answer("200 OK", content_type, body, headers)


def _parameters(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, max_num_fields=_MOST_PARAMETERS))
    except ValueError:
        return {}


def _cookie(environ: Environ) -> str:
    try:
        found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _form(environ: Environ) -> dict[str, str]:
    try:
        length = min(int(environ.get("CONTENT_LENGTH") or 0), _LONGEST_FORM)
        return _parameters(environ["wsgi.input"].read(max(length, 0)).decode("ascii", "replace"))
    except (OSError, ValueError):
        return {}
