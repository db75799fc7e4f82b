"""What browsers are shown: the files of `www/` as they are, which hold nothing of anybody's, so that no key is wanted.

They ask the routes beside them for the rest, with the key that they were given.
"""

from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from dispatcher.gateway.errors import HttpError

_WWW = Path(__file__).parent / "www"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# Only these files run and show, they reach this address alone, and no text can become markup: where a page set
# `innerHTML`, its browser would refuse.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cache-Control": "no-cache",  # after an update a page must not meet the scripts of before
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Page:
    """One page at `/`, and the files that it loads, at `/page/`."""

    def __init__(self, page: str, *files: str) -> None:
        self._page, self._files = page, {name: _answer(name) for name in (page, *files)}
        self.paths = frozenset({"/", *(f"/page/{name}" for name in files)})  # that anybody may ask for

    async def show(self, _: HttpRequest) -> Response:
        return self._files[self._page]

    async def file(self, http: HttpRequest) -> Response:
        if (found := self._files.get(http.path_params["file"])) is None:
            raise HttpError(404, "No such file.", code="not_found")
        return found


def _answer(name: str) -> Response:
    path = _WWW / name
    return Response(path.read_bytes(), headers=_HEADERS, media_type=_TYPES[path.suffix])


def operator_page() -> Page:
    """The console."""
    return Page(
        "console.html", "page.css", "console.css", "start.js", "console.js", "live.js", "sessions.js", "session.js",
        "account.js", "stop.js", "approvals.js", "fleet.js", "http.js", "text.js",
    )  # fmt: skip


def user_page() -> Page:
    return Page("user.html", "page.css", "user.js", "http.js", "text.js")
