"""Who may see the page: it shows data of users.

On loopback it is open to whoever is on the machine, but not to other sites in the same browser:
a request must name a loopback host, and come from the page itself. Off loopback it asks for the
token of INTEREST_HTTP_TOKEN_FILE once, and remembers it in a cookie that scripts cannot read.
`/livez` carries no data of a user and is open.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stream_app.errors import SettingsError
from stream_app.settings import PREFIX, Settings, is_loopback

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "interest-stream-page"
MAX_FORM_BYTES = 4096
# The browser itself refuses what is not of this page, whatever a library might ask for.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]
_FORM = """<!doctype html><html lang="en"><meta charset="utf-8"><title>interest stream</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:20vh auto;padding:0 1rem}}
input,button{{font:inherit;padding:.5rem .7rem;width:100%;box-sizing:border-box;margin-top:.5rem}}
</style><h1>interest stream</h1><p role="status">{sentence}</p>
<form method="post" action="/"><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Show the page</button></form></html>"""


def page_token(settings: Settings, host: str) -> str | None:
    """The token that the page asks for, None on loopback.

    Raises:
        SettingsError: the page is to listen off loopback, and there is no token.
    """
    if is_loopback(host):
        return None
    token = settings.http_access()
    if token is None:
        raise SettingsError(
            f"The page shows data of users, and others can reach {host}; set "
            f"{PREFIX}HTTP_TOKEN_FILE to a file that holds a token, or leave out --host."
        )
    return token


class Guard:
    """The page behind its token, HTTP and web sockets alike. ``app`` is what is guarded."""

    def __init__(self, app: App, token: str | None) -> None:
        self.app = app
        self._token = token
        # Of the cookie, which so does not hold the token itself and ends with this process.
        self._key = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] == "http" and scope["path"] == "/livez":
            await _answer(send, 200, "text/plain", b"live")
        elif not self._is_ours(headers):
            await _refuse(scope, send, "Open the page by its own address.")
        elif self._token is None or self._knows(headers.get(b"cookie", "")):
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == "/":
            await self._enter(receive, send)
        elif scope["type"] == "http":
            await _ask(send, 401, "This page shows data of users. Enter the token of the workers.")
        else:
            await _refuse(scope, send, "Enter the token first.")

    def _is_ours(self, headers: MutableMapping[bytes, str]) -> bool:
        """Whether the request names a host that is ours and comes from no other site."""
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            came_from = host if origin is None else urlsplit(origin).netloc
        except ValueError:
            return False
        if self._token is None and not is_loopback(name):
            return False  # another site's name that leads to loopback
        return came_from == host

    def _knows(self, cookies: str) -> bool:
        try:
            found = SimpleCookie(cookies).get(COOKIE)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(
            found.value.encode(), self._cookie().encode()
        )

    def _cookie(self) -> str:
        assert self._token is not None
        return hmac.new(self._key, self._token.encode(), hashlib.sha256).hexdigest()

    async def _enter(self, receive: Receive, send: Send) -> None:
        body = b""
        more = True
        while more and len(body) <= MAX_FORM_BYTES:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        assert self._token is not None
        if not hmac.compare_digest(given.strip().encode(), self._token.encode()):
            await _ask(send, 401, "That is not the token. It is in the file that the workers have.")
            return
        cookie = f"{COOKIE}={self._cookie()}; HttpOnly; SameSite=Strict; Path=/"
        extra = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        await _answer(send, 303, "text/plain", b"", extra)


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
        await send(message)

    return sending


async def _ask(send: Send, status: int, sentence: str) -> None:
    await _answer(send, status, "text/html", _FORM.format(sentence=escape(sentence)).encode())


async def _refuse(scope: Scope, send: Send, sentence: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await _answer(send, 403, "text/plain", sentence.encode())


async def _answer(
    send: Send,
    status: int,
    content_type: str,
    body: bytes,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    headers = [
        (b"content-type", f"{content_type}; charset=utf-8".encode()),
        (b"cache-control", b"no-store"),
        *_HEADERS,
        *(extra or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
