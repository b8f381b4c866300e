"""Runs the live page until it is ended: the feeds, the page and its server."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from stream_app.errors import UsageError
from stream_app.settings import Settings
from stream_app.terminal import console
from stream_app.ui.access import Guard, page_token
from stream_app.ui.feed import FlowFeed, TopicFeed
from stream_app.ui.history import Histories
from stream_app.ui.page import ICON, TITLE, Sources, make_page
from stream_app.ui.workers import Workers
from stream_app.worker_http import worker_url

SHUTDOWN_S = 2


def run_page(settings: Settings, host: str, port: int, urls: Sequence[str]) -> None:
    """Serves the page until SIGTERM or Ctrl-C.

    Args:
        host, port: where it listens; port 0 takes a free one.
        urls: of the workers.

    Raises:
        SettingsError: the page would listen off loopback without a token.
        UsageError: it cannot listen there, or an address is none of a worker.
    """
    guard_token = page_token(settings, host)
    own = settings.http_url or f"http://{settings.http_host}:{settings.http_port}"
    workers = Workers(tuple(map(worker_url, urls or (own,))), settings.http_access())
    histories = Histories()
    sources = Sources(histories, TopicFeed(settings, histories), FlowFeed(workers), workers)
    with _listening(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        make_page(sources)
        app = FastAPI(openapi_url=None)
        ui.run_with(
            app,
            title=TITLE,
            favicon=ICON,
            dark=None,
            language="en-US",
            tailwind=False,
            show_welcome_message=False,
            reconnect_timeout=10.0,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                Guard(app, guard_token),
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
        )
        # uvicorn stops in order, and then raises the signal again for whoever handled it before.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        sources.topics.start()
        sources.flow.start()
        console.print(
            f"Page at http://{address}:{listener.getsockname()[1]}/; Ctrl-C ends it.",
            highlight=False,
        )
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            console.print("Ended.")
        finally:
            sources.topics.stop()
            sources.flow.stop()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"The page cannot listen on {host}:{port} ({error.strerror}); name another --port or "
            "--host."
        ) from None
