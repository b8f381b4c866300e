"""Questions to a worker over HTTP, as commands and the live page put them."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request

from stream_app.errors import UsageError, WorkerError
from stream_app.settings import WORKER_URL

MAX_ANSWER_BYTES = 8_000_000


class UnknownUserError(WorkerError):
    """A worker has stored nothing of the user."""


def worker_url(text: str) -> str:
    """The address of a worker, without a slash at its end; UsageError when it is none."""
    if re.fullmatch(WORKER_URL, text) is None:
        raise UsageError(f"{text!r} is no URL of a worker; write it like http://worker-1:6066.")
    return text.rstrip("/")


def ask(address: str, token: str | None, timeout_s: float) -> bytes:
    """The body of a worker's answer.

    Raises:
        UnknownUserError: the worker answers 404.
        WorkerError: none answers, or it refuses; one sentence.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    worker = "/".join(address.split("/")[:3])
    try:
        request = urllib.request.Request(address, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # nosec B310
            body: bytes = answer.read(MAX_ANSWER_BYTES)
            return body
    except urllib.error.HTTPError as error:
        raise _refusal(worker, error) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", None) or error
        raise WorkerError(
            f"No worker answers at {worker} ({cause}); start one, or name one with --url."
        ) from None


def no_worker(address: str) -> WorkerError:
    """What to raise for an answer that no worker gives."""
    return WorkerError(f"The answer of {address} is none of a worker; name one with --url.")


def _refusal(worker: str, error: urllib.error.HTTPError) -> WorkerError:
    try:
        sentence = str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError, OSError):
        sentence = f"The worker at {worker} answers {error.code}; look at its log."
    return UnknownUserError(sentence) if error.code == 404 else WorkerError(sentence)
