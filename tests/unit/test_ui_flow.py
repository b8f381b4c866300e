"""The flow in figures, from the metrics that a worker really writes."""

from __future__ import annotations

import math
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from stream_app.errors import WorkerError
from stream_app.metrics import Metrics
from stream_app.ui.flow import FlowMeter, quantile, read_metrics
from stream_app.ui.workers import Workers


class Worker:
    """The metrics of a worker that applies events."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry)

    def apply(self, events: int, latency_s: float, lag: int) -> None:
        self._metrics.events_total.labels("click", "applied").inc(events)
        self._metrics.events_total.labels("click", "duplicate").inc(3)
        self._metrics.event_latency_seconds.observe(np.full(events, latency_s))
        self._metrics.set_lag("clicks", 0, lag)

    def text(self) -> str:
        return generate_latest(self._registry).decode()


def test_rate_lag_and_latency_are_of_the_last_seconds() -> None:
    meter, ann, bob = FlowMeter(), Worker(), Worker()
    first = meter.take({"ann": read_metrics(ann.text(), 0.0), "bob": read_metrics(bob.text(), 0.0)})
    assert (first.answering, first.events_per_s, first.p99_ms) == (2, None, None)
    ann.apply(100, 0.02, 7)
    bob.apply(300, 0.02, 5)
    flow = meter.take({"ann": read_metrics(ann.text(), 2.0), "bob": read_metrics(bob.text(), 2.0)})
    assert flow.events_per_s == 200.0
    assert flow.lag == 12
    assert flow.p50_ms is not None
    assert 10 <= flow.p50_ms <= 25
    # long after, nothing of that is left
    still = {"ann": read_metrics(ann.text(), 100.0), "bob": read_metrics(bob.text(), 100.0)}
    meter.take(still)
    later = {"ann": read_metrics(ann.text(), 102.0), "bob": read_metrics(bob.text(), 102.0)}
    assert meter.take(later).events_per_s == 0.0


def test_a_worker_that_begins_anew_counts_from_there() -> None:
    meter, before, after = FlowMeter(), Worker(), Worker()
    before.apply(1000, 0.1, 0)
    meter.take({"ann": read_metrics(before.text(), 0.0)})
    after.apply(10, 0.1, 0)
    assert meter.take({"ann": read_metrics(after.text(), 1.0)}).events_per_s is None
    after.apply(10, 0.1, 0)
    assert meter.take({"ann": read_metrics(after.text(), 2.0)}).events_per_s == 10.0


def test_nobody_answers() -> None:
    flow = FlowMeter().take({})
    assert (flow.answering, flow.events_per_s, flow.lag) == (0, None, None)


def test_quantiles_are_those_of_prometheus() -> None:
    buckets = [(0.1, 10.0), (0.2, 30.0), (math.inf, 40.0)]
    assert quantile(buckets, 0.5) == pytest.approx(0.15)
    assert quantile(buckets, 0.99) == 0.2  # beyond the last bound
    assert quantile([(0.1, 0.0), (math.inf, 0.0)], 0.5) is None
    assert quantile([], 0.5) is None


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        has_token = self.headers["Authorization"] == "Bearer a-token-of-length"
        answers = {
            "/users/ann": (200, '{"user_id":"ann","events":3,"offsets":{},"new":1}'),
            "/users/ann?without=2": (200, '{"user_id":"ann","events":1,"without":2}'),
            "/users/bob%2F%C3%A9": (404, '{"error":"Nothing is stored of this user."}'),
            "/users/eve": (200, "[]"),
        }
        status, body = answers.get(self.path, (500, "oops"))
        if not has_token:
            status, body = 401, '{"error":"User data asks for a token."}'
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        """Nothing to standard error."""


def test_a_worker_is_asked_with_the_token_and_its_refusal_is_a_sentence() -> None:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        workers = Workers((url,), "a-token-of-length")
        ann = workers.user("ann")
        assert ann is not None
        assert (ann.events, ann.without, ann.interests) == (3, None, [])
        shorter = workers.user("ann", 2)
        assert shorter is not None
        assert (shorter.events, shorter.without) == (1, 2)
        assert workers.user("bob/é") is None
        for asked, user, sentence in (
            (Workers((url,), None), "ann", "User data asks for a token."),
            (workers, "eve", "none of a worker"),
            (workers, "zoe", "answers 500"),
            (Workers(("http://127.0.0.1:1",), None), "ann", "No worker answers at"),
            (Workers((), None), "ann", "--url"),
        ):
            with pytest.raises(WorkerError, match=sentence):
                asked.user(user)
        # the next one is asked when the first does not answer
        assert Workers(("http://127.0.0.1:1", url), "a-token-of-length").user("ann") == ann
        server.shutdown()
