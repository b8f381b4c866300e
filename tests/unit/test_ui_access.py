"""Who gets to see the live page."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from stream_app.errors import SettingsError
from stream_app.settings import Settings
from stream_app.ui.access import COOKIE, Guard, page_token

TOKEN = "0123456789abcdef"


async def page(scope: Any, receive: Any, send: Any) -> None:
    """What is guarded: it answers everything."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"what is guarded"})


async def ask(
    guard: Guard,
    path: str = "/",
    kind: str = "http",
    method: str = "GET",
    body: bytes = b"",
    **headers: str,
) -> tuple[Any, dict[str, str], bytes]:
    """Status (or the first message's type of a web socket), headers and body."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "path": path,
        "method": method,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await guard(scope, receive, send)
    if kind == "websocket":
        return sent[0]["type"], {}, b""
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


def test_off_loopback_the_page_asks_for_a_token(tmp_path: Path) -> None:
    assert page_token(Settings(), "127.0.0.1") is None
    assert page_token(Settings(), "::1") is None
    assert page_token(Settings(), "localhost") is None
    for host in ("0.0.0.0", "::", "10.0.0.1", "shop.example"):
        with pytest.raises(SettingsError, match="INTEREST_HTTP_TOKEN_FILE"):
            page_token(Settings(), host)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert page_token(Settings(http_token_file=file), "0.0.0.0") == TOKEN


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8080"}, 200),
        ({"host": "localhost:8080", "origin": "http://localhost:8080"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "evil.example:8080"}, 403),  # a name that leads to loopback
        ({"host": "127.0.0.1:8080", "origin": "https://evil.example"}, 403),
        ({"host": "127.0.0.1:8080", "origin": "null"}, 403),
        ({"host": "["}, 403),
        ({"host": "127.0.0.1:8080", "origin": "http://["}, 403),
        ({}, 403),
    ],
)
async def test_on_loopback_only_the_page_itself_gets_data(
    headers: dict[str, str], status: int
) -> None:
    guard = Guard(page, None)
    found, sent, body = await ask(guard, **headers)
    assert found == status
    assert (body == b"what is guarded") == (status == 200)
    assert "default-src 'self'" in sent["content-security-policy"]
    socket, _, _ = await ask(guard, kind="websocket", **headers)
    assert socket == ("websocket.accept" if status == 200 else "websocket.close")


async def test_with_a_token_nobody_gets_in_without_it() -> None:
    guard = Guard(page, TOKEN)
    host = {"host": "shop.example"}
    for path in ("/", "/_nicegui/anything", "/?user=ann"):
        status, _, body = await ask(guard, path, **host)
        assert (status, b"what is guarded" in body) == (401, False)
    assert (await ask(guard, kind="websocket", **host))[0] == "websocket.close"
    assert (await ask(guard, "/livez"))[0] == 200

    wrong = urlencode({"token": "fedcba9876543210"}).encode()
    assert (await ask(guard, method="POST", body=wrong, **host))[0] == 401
    right = urlencode({"token": TOKEN}).encode()
    status, sent, _ = await ask(guard, method="POST", body=right, **host)
    assert (status, sent["location"]) == (303, "/")
    assert TOKEN not in sent["set-cookie"]
    assert "HttpOnly; SameSite=Strict" in sent["set-cookie"]

    cookie = sent["set-cookie"].partition(";")[0]
    assert (await ask(guard, cookie=cookie, **host))[0] == 200
    assert (await ask(guard, kind="websocket", cookie=cookie, **host))[0] == "websocket.accept"
    for other in (f"{COOKIE}=x", f"{COOKIE}={TOKEN}", "a=b", ""):
        assert (await ask(guard, cookie=other, **host))[0] == 401
    assert (await ask(guard, cookie=f'{COOKIE}="\\351"', **host))[0] == 401
    foreign = {**host, "origin": "https://evil.example"}
    assert (await ask(guard, cookie=cookie, **foreign))[0] == 403
    assert (await ask(Guard(page, TOKEN), cookie=cookie, **host))[0] == 401  # of another process
