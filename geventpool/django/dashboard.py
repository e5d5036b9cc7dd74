"""The page with all pools: `path("pools/", include("geventpool.django.dashboard"))`.

Staff may look, and whoever knows `GEVENTPOOL_DASHBOARD_TOKEN` if the environment sets it. The project's
settings may have `GEVENTPOOL_DASHBOARD_ALLOW`: a function of a request, or its name such as
`"shop.views.is_operator"`, in place of staff; `GEVENTPOOL_SNAPSHOTS`: where processes publish;
`GEVENTPOOL_DASHBOARD_MEMORY`: the file with the last day.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from django import conf  # not `settings` itself, at which a search for doctests stumbles
from django.http import HttpRequest, HttpResponseForbidden, StreamingHttpResponse
from django.urls import re_path
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt

from ..dashboard.making import Embedded


@cache
def _page() -> Embedded:
    return Embedded(
        getattr(conf.settings, "GEVENTPOOL_SNAPSHOTS", None),
        getattr(conf.settings, "GEVENTPOOL_DASHBOARD_MEMORY", None),
    )


def is_staff(request: HttpRequest) -> bool:
    """Who may look by default. May switch greenlets."""
    user: Any = getattr(request, "user", None)
    return bool(user is not None and user.is_active and user.is_staff)


def show(request: HttpRequest, path: str) -> Any:
    """Any page of it. May switch greenlets."""
    allow: Any = getattr(conf.settings, "GEVENTPOOL_DASHBOARD_ALLOW", is_staff)
    may_look: Callable[[HttpRequest], bool] = (
        import_string(allow) if isinstance(allow, str) else allow
    )
    is_known, page = bool(may_look(request)), _page()
    if not is_known and not page.has_token:
        return HttpResponseForbidden("Log in as staff to see this page.", content_type="text/plain")
    base = request.path[: len(request.path) - len(path)].rstrip("/")
    answer: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        answer.append((status, headers))

    environ = {**request.META, "REQUEST_METHOD": request.method}
    body = page.answer(environ, start_response, base, path, is_known)
    [(status, headers)] = answer
    return StreamingHttpResponse(body, status=int(status[:3]), headers=dict(headers))


urlpatterns = [re_path(r"^(?P<path>.*)$", csrf_exempt(show))]
