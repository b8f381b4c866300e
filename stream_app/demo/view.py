"""The live terminal view of the demo."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timezone

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from stream_app.demo.observer import OutputObserver, percentile
from stream_app.events import Drift, Recommendation, Share
from stream_app.terminal import plain

SHOWN_USERS = 3


@dataclass
class Flow:
    """Counts of one moment: produced and applied events, and the rate since the last moment."""

    produced: int = 0
    applied: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    per_second: float = 0.0
    _moments: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=20))

    def rate(self, now: float) -> None:
        """Notes this moment (seconds) and sets the rate over the last few."""
        self._moments.append((now, self.applied))
        since, before = self._moments[0]
        self.per_second = (self.applied - before) / (now - since) if now > since else 0.0


def render(flow: Flow, observer: OutputObserver) -> RenderableType:
    """The view as rich draws it."""
    return Group(
        _flow_panel(flow, observer),
        _interest_panel(observer),
        _drift_panel(list(observer.last_drifts)),
        _recommendation_panel(list(observer.last_recommendations)),
    )


def _flow_panel(flow: Flow, observer: OutputObserver) -> Panel:
    table = Table.grid(padding=(0, 2))
    recent = list(observer.recent_ms)
    table.add_row(
        f"[bold]{flow.per_second:,.0f}[/] events/s",
        f"produced {flow.produced:,}",
        f"applied {flow.applied:,}",
        f"repeats {flow.duplicates:,}",
        f"dead letters {flow.dead_letters:,}",
    )
    table.add_row(
        f"p50 {_ms(percentile(recent, 0.5))}",
        f"p99 {_ms(percentile(recent, 0.99))}",
        "from produce to output",
        f"drift events {len(observer.drifts):,}",
        f"recommendations {len(observer.given):,}",
    )
    return Panel(table, title="interest stream", title_align="left")


def _interest_panel(observer: OutputObserver) -> Panel:
    table = Table(box=None, pad_edge=False, show_header=False)
    latest: dict[str, Recommendation] = {}
    for message in list(observer.last_recommendations):
        latest.setdefault(message.user_id, message)
    for message in list(latest.values())[:SHOWN_USERS]:
        first = message.interests[:4]
        likely = "   ".join(f"{plain(one.category)} {one.probability:.0%}" for one in first)
        table.add_row(f"[cyan]{plain(message.user_id)}[/]", likely)
    return Panel(table, title="likely categories of the next window", title_align="left")


def _drift_panel(drifts: list[Drift]) -> Panel:
    table = Table(box=None, pad_edge=False, show_header=False)
    for drift in drifts[:4]:
        since = datetime.fromtimestamp(drift.since / 1000, timezone.utc)
        evidence = ", ".join(f"{plain(e.category)} #{e.offset}" for e in drift.evidence[:3])
        table.add_row(
            f"[cyan]{plain(drift.user_id)}[/]",
            f"{_shares(drift.from_)} [bold]→[/] {_shares(drift.to)}",
            f"since {since:%d %b}, {drift.statistic:.1f} ≥ {drift.threshold:.1f}",
            f"[dim]{evidence}[/]",
        )
    return Panel(table, title="interest drift, with its evidence", title_align="left")


def _shares(shares: list[Share]) -> str:
    return ", ".join(f"{plain(share.category)} {share.share:.0%}" for share in shares[:2])


def _recommendation_panel(messages: list[Recommendation]) -> Panel:
    table = Table(box=None, pad_edge=False, show_header=False)
    for message in messages[:4]:
        for item in message.items[:1]:
            table.add_row(
                f"[cyan]{plain(message.user_id)}[/]",
                message.trigger,
                plain(item.item_id),
                f"[dim]{plain(item.reason.text)}[/]",
            )
    return Panel(table, title="recommendations, with their reason", title_align="left")


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} ms"
