"""The page as it stands: the flow, the population, recent drifts, and one user."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from nicegui import html, ui
from nicegui.element import Element

from stream_app.events import Drift
from stream_app.ui import charts, words
from stream_app.ui.feed import FlowFeed, TopicFeed
from stream_app.ui.history import Counts, Histories
from stream_app.ui.population import PopulationView
from stream_app.ui.user_section import UserSection, say, show_if, text
from stream_app.ui.workers import Workers

TITLE = "interest stream"
REFRESH_S = 1.0
ASK_S = 2.0
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<path d="M2 24 L10 12 L18 17 L30 5 V28 H2 Z" fill="#0072B2"/>'
    '<path d="M2 26 L10 20 L18 23 L30 14 V28 H2 Z" fill="#E69F00"/></svg>'
)
NOTHING_YET = (
    "No outputs yet; start a worker with interest-stream worker, or look whether producers send "
    "events."
)
_STYLE = Path(__file__).with_name("style.css")
# A mouse over the list, or the focus in it, keeps rows where they are.
_MOUSE_ONLY = "(e) => { if (e.pointerType === 'mouse') emit() }"


@dataclass(frozen=True)
class Sources:
    """What the pages of all visitors read."""

    histories: Histories
    topics: TopicFeed
    flow: FlowFeed
    workers: Workers


def make_page(sources: Sources) -> None:
    """Registers the page at `/`; `?user=ID` begins with a user."""
    style = _STYLE.read_text("utf-8")

    @ui.page("/", title=TITLE)
    def page(user: str | None = None) -> None:
        ui.add_head_html(f"<style>{style}</style>")
        with html.header():
            html.h1(TITLE)
            html.p("What users are interested in, as it changes")
        with html.div():
            status = _Status(sources)
            flow = _FlowSection(sources)
            with html.div().classes("overview"):
                population = _PopulationSection(sources.histories)
                drifts = _DriftSection(sources.histories)
            one = UserSection(sources.histories, sources.workers, user)
        drifts.on_choice = one.choose

        def refresh() -> None:
            counts = sources.histories.counts()
            status.refresh(counts)
            flow.refresh(counts)
            population.refresh(counts)
            drifts.refresh()
            one.refresh()

        refresh()
        ui.timer(REFRESH_S, refresh)
        ui.timer(ASK_S, one.ask)


class _Status:
    """What is wrong, one sentence each; and how fresh the page is."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._trouble = ui.html(sanitize=False).classes("troubles").props("role=status")

    def refresh(self, counts: Counts) -> None:
        topics, flow = self._sources.topics, self._sources.flow
        sentences = [trouble for trouble in (topics.trouble, flow.trouble) if trouble]
        if not counts.recommendations and topics.trouble is None:
            sentences.append(NOTHING_YET)
        self._trouble.set_content(
            "".join(f'<p class="trouble">{escape(sentence)}</p>' for sentence in sentences)
        )


class _Tile:
    def __init__(self, label: str, with_line: bool = False) -> None:
        with html.div().classes("tile"):
            html.span(label).classes("label")
            self.value = text("strong", words.NONE)
            self.note = text("span").classes("note")
            self.line = ui.html(sanitize=False).classes("line") if with_line else None

    def show(self, value: str, note: str = "", trend: tuple[float, ...] = ()) -> None:
        say(self.value, value)
        say(self.note, note)
        if self.line is not None:
            self.line.set_content(charts.sparkline(trend))


class _FlowSection:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        with html.section(**{"aria-label": "Flow"}).classes("tiles"):
            self._rate = _Tile("events a second", with_line=True)
            self._latency = _Tile("latency, p50 / p99", with_line=True)
            self._lag = _Tile("lag")
            self._outputs = _Tile("lists / drifts read")
            self._letters = _Tile("dead letters")

    def refresh(self, counts: Counts) -> None:
        flow = self._sources.flow.flow
        workers = len(self._sources.workers.urls)
        self._rate.show(
            words.count(flow.events_per_s),
            f"{flow.answering} of {workers} worker{'' if workers == 1 else 's'}",
            flow.rate_trend,
        )
        self._latency.show(
            f"{words.milliseconds(flow.p50_ms)} / {words.milliseconds(flow.p99_ms)}",
            "from production to output",
            flow.tail_trend,
        )
        self._lag.show(words.count(flow.lag), "events not applied yet")
        self._outputs.show(
            f"{counts.recommendations:,} / {counts.drifts:,}",
            f"{counts.users:,} users, {self._freshness()}",
        )
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in list(counts.letters.items())[:3])
        self._letters.show(f"{sum(counts.letters.values()):,}", reasons or "none was read")

    def _freshness(self) -> str:
        heard_at = self._sources.topics.heard_at
        if heard_at is None:
            return "none so far"
        seconds = time.monotonic() - heard_at
        return "last just now" if seconds < 5 else f"last {seconds:,.0f} s ago"


class _PopulationSection:
    def __init__(self, histories: Histories) -> None:
        self._histories = histories
        self._seen: tuple[int, int] = (0, 0)
        self._colours: dict[str, str] = {}
        with html.section(**{"aria-labelledby": "population"}).classes("card"):
            html.h2("Interests of all users", id="population")
            self._empty = text("p", "They appear with the first lists.").classes("empty")
            with html.div() as self._body:
                self._legend = ui.html(sanitize=False)
                view = histories.population(charts.TOP)
                self._chart = ui.echart(charts.population_chart(view, {}), renderer="svg")
                self._chart.classes("chart").props("role=img")

    def refresh(self, counts: Counts) -> None:
        seen = (counts.recommendations, counts.drifts)
        show_if(not counts.recommendations, self._empty)
        show_if(bool(counts.recommendations), self._body)
        if seen == self._seen:
            return
        self._seen = seen
        view = self._histories.population(charts.TOP)
        self._colours = charts.assign_colours(self._colours, view.categories)
        self._legend.set_content(_legend(view, self._colours))
        self._chart.options.update(charts.population_chart(view, self._colours))
        self._chart.props["aria-label"] = (
            f"Stacked areas: shares of the interest of all users in {', '.join(view.categories)} "
            "over event time; the list above has them over the whole time."
        )
        self._chart.update()


def _legend(view: PopulationView, colours: dict[str, str]) -> str:
    rows = "".join(
        f'<li><i class="swatch" style="background:{colours[category]}"></i>{escape(category)} '
        f"<b>{words.percent(share)}</b></li>"
        for category, share in zip(view.categories, view.overall, strict=True)
    )
    return f'<ul class="legend">{rows}</ul>'


class _DriftSection:
    """The latest drifts; a row that stays keeps its element, and with it the focus."""

    def __init__(self, histories: Histories) -> None:
        self._histories = histories
        self._rows: dict[str, Element] = {}
        self._is_held = {"mouse": False, "focus": False}
        self.on_choice: Callable[[str], Awaitable[None]] = _nobody
        with html.section(**{"aria-labelledby": "drifts"}).classes("card drifts"):
            html.h2("Recent drifts", id="drifts")
            self._note = text("p").classes("empty")
            self._list = html.ol().classes("rows")
        self._list.on("pointerenter", lambda: self._hold("mouse", True), js_handler=_MOUSE_ONLY)
        self._list.on("pointerleave", lambda: self._hold("mouse", False), args=[])
        self._list.on("focusin", lambda: self._hold("focus", True), args=[])
        self._list.on("focusout", lambda: self._hold("focus", False), args=[])

    def _hold(self, by: str, is_held: bool) -> None:
        self._is_held[by] = is_held

    def refresh(self) -> None:
        latest = self._histories.drifts()
        new = sum(drift.id not in self._rows for drift in latest)
        if not latest:
            say(self._note, "None was raised so far.")
            return
        if new and self._rows and any(self._is_held.values()):
            say(self._note, f"{new} newer; they are shown when you leave the list.")
            return
        say(self._note, "Choose one to see the user.")
        there = {drift.id for drift in latest}
        for drift_id in [known for known in self._rows if known not in there]:
            self._rows.pop(drift_id).delete()
        for place, drift in enumerate(latest):
            if drift.id not in self._rows:
                with self._list:
                    self._rows[drift.id] = self._row(drift)
                self._rows[drift.id].move(self._list, place)

    def _row(self, drift: Drift) -> Element:
        with (
            html.li() as row,
            html.button(type="button").on("click", lambda: self.on_choice(drift.user_id), args=[]),
        ):
            text("b", drift.user_id)
            text("span", words.moment(drift.timestamp)).classes("note")
            text("span", f"{words.shares(drift.from_)} → {words.shares(drift.to)}").classes("what")
        return row


async def _nobody(user_id: str) -> None:
    """Until the section of the user is there."""
