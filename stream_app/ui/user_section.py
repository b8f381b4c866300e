"""The part of the page about one user: found by id or by a drift, and what is known of them."""

from __future__ import annotations

import asyncio
from html import escape
from urllib.parse import quote

from nicegui import html, run, ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from stream_app.errors import WorkerError
from stream_app.events import MAX_ID_LENGTH
from stream_app.ui import charts, panels
from stream_app.ui.history import Histories, UserView
from stream_app.ui.workers import KnownUser, Workers

MAX_WITHOUT = 16  # events that a row keeps
FIRST_WITHOUT = 3
HEADING = "user-heading"

_FIND = "(e) => { e.preventDefault(); emit(new FormData(e.target).get('user')) }"
_LOOK = f"""
const heading = document.getElementById({HEADING!r});
const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
heading.focus({{preventScroll: true}});
heading.closest('section').scrollIntoView({{behavior: calm ? 'auto' : 'smooth'}});
"""


def text(tag: str, content: str = "") -> ui.html:
    """An element with a text that may come from outside; see `say`."""
    return ui.html(escape(content), sanitize=False, tag=tag)


def say(element: ui.html, content: str) -> None:
    """Sets the text of an element made by `text`."""
    element.set_content(escape(content))


def show_if(is_shown: bool, element: Element) -> None:
    """Shows an element or hides it, with the size that a chart in it needs to begin with."""
    element.classes(remove="gone") if is_shown else element.classes("gone")


class UserSection:
    """Asks the histories for what was read, and a worker for what the row says."""

    def __init__(self, histories: Histories, workers: Workers, user_id: str | None) -> None:
        self._histories = histories
        self._workers = workers
        self._user_id = user_id[:MAX_ID_LENGTH] if user_id else None
        self._view = UserView("")
        self._known: KnownUser | None = None
        self._other: KnownUser | None = None
        self._trouble = ""
        self._drawn: tuple[object, ...] = ()
        self._without = FIRST_WITHOUT
        self._colours: dict[str, str] = {}
        self._asking = asyncio.Lock()
        with html.section(**{"aria-labelledby": HEADING}).classes("card user"):
            self._build_search()
            self._heading = text("h2", "One user").props(f"id={HEADING} tabindex=-1")
            with html.div().classes("summary"):
                self._summary = text("p", "Type an id, or choose a drift once one is raised.")
                self._meter = ui.html(sanitize=False).classes("meter")
            self._sentence = text("p").classes("trouble")
            with html.div().classes("body") as self._body:
                self._build_body()
        show_if(False, self._body)

    def _build_search(self) -> None:
        with (
            html.form(role="search")
            .classes("search")
            .on("submit", lambda event: self.choose(str(event.args or "")), js_handler=_FIND)
        ):
            html.label("User id", **{"for": "user-id"})
            html.input_(
                id="user-id",
                name="user",
                type="search",
                autocomplete="off",
                spellcheck="false",
                required=True,
                maxlength=MAX_ID_LENGTH,
            )
            html.button("Show", type="submit")

    def _build_body(self) -> None:
        with html.div().classes("chart-and-legend"):
            with html.div().classes("chart-side"):
                html.h3("Interests over event time")
                self._chart = ui.echart(charts.user_chart(self._view, {}), renderer="svg")
                self._chart.classes("chart tall").props("role=img")
            with html.div():
                html.h3("Likely in the next window")
                self._likings = ui.html(sanitize=False)
        with html.div().classes("columns"):
            with html.div():
                html.h3("Recommended now")
                self._items = ui.html(sanitize=False)
            with html.div():
                html.h3("Last events")
                self._events = ui.html(sanitize=False)
            with html.div():
                with html.div() as self._shorter:
                    self._build_without()
                html.h3("Drifts, with their evidence")
                self._drifts = ui.html(sanitize=False)

    def _build_without(self) -> None:
        html.h3("Without the last events")
        with html.div().classes("without"):
            html.label("Leave out", **{"for": "without"})
            # "^value" is the value to begin with: Vue sets "value" again with every update.
            html.input_(
                id="without", type="range", min=0, max=MAX_WITHOUT, **{"^value": self._without}
            ).on(
                "input",
                self._leave_out,
                js_handler="(e) => emit(Number(e.target.value))",
                throttle=0.2,
            )
            self._left_out = text("output", str(self._without)).props("for=without")
        self._change = ui.html(sanitize=False).classes("changes")

    async def choose(self, user_id: str) -> None:
        """Shows another user, and brings the section into view."""
        user_id = user_id.strip()[:MAX_ID_LENGTH]
        if not user_id:
            return
        self._user_id = user_id
        self._known = self._other = None
        self._colours, self._trouble = {}, ""
        self.refresh()
        ui.navigate.history.replace(f"/?user={quote(user_id, safe='')}")
        ui.run_javascript(_LOOK)
        await self.ask()

    def refresh(self) -> None:
        """Shows what the histories say by now; of the latest drift's user while none is chosen."""
        if self._user_id is None:
            drifts = self._histories.drifts()
            if not drifts:
                return
            self._user_id = drifts[0].user_id
        self._view = self._histories.user(self._user_id)
        self._show()

    async def ask(self) -> None:
        """Asks a worker about the user, when something may have changed."""
        if self._user_id is None or self._asking.locked():
            return
        async with self._asking:
            user_id, without = self._user_id, self._without
            known = other = None
            try:
                known = await run.io_bound(self._workers.user, user_id)
                if known is not None and without:
                    other = await run.io_bound(self._workers.user, user_id, without)
                trouble = "" if known is not None else "No worker has a row of this user."
            except WorkerError as error:
                trouble = str(error)
            if user_id != self._user_id:
                return
            self._known, self._other, self._trouble = known, other, trouble
            self._show()

    async def _leave_out(self, event: GenericEventArguments) -> None:
        self._without = min(max(int(event.args), 0), MAX_WITHOUT)
        say(self._left_out, str(self._without))
        await self.ask()

    def _draw(self, view: UserView) -> None:
        if self._drawn == _mark(view):
            return
        self._drawn = _mark(view)
        self._colours = charts.assign_colours(self._colours, charts.top_categories(view.points))
        self._chart.options.update(charts.user_chart(view, self._colours))
        self._chart.props["aria-label"] = _alternative(view)
        self._chart.update()

    def _show(self) -> None:
        known = self._known
        view = panels.up_to_now(self._view, known)
        is_known = bool(view.points or view.drifts or known)
        say(self._heading, self._user_id or "")
        show_if(is_known, self._body)
        if not is_known:
            say(self._summary, "No output of this user was read; look whether the id is right.")
            self._meter.set_content("")
            say(self._sentence, self._trouble)
            return
        self._draw(view)
        say(self._summary, panels.summary(view, known))
        self._meter.set_content(panels.meter(known))
        say(self._sentence, self._trouble)
        self._likings.set_content(panels.likings_list(panels.likings(view, known), self._colours))
        self._items.set_content(panels.items_list(panels.items(view, known)))
        self._events.set_content(panels.events_table(known))
        self._drifts.set_content(panels.drifts_list(view.drifts))
        # a worker of an earlier version leaves nothing out
        show_if(self._other is None or self._other.without is not None, self._shorter)
        self._change.set_content(self._changes())

    def _changes(self) -> str:
        known, other = self._known, self._other
        if not self._without:
            return '<p class="empty">Move the slider to leave out events.</p>'
        if known is None or other is None:
            return '<p class="empty">A worker knows them; none answered for this user.</p>'
        return panels.without_table(known, other, self._without)


def _mark(view: UserView) -> tuple[object, ...]:
    last = view.points[-1].time_ms if view.points else None
    return view.user_id, len(view.points), last, len(view.drifts)


def _alternative(view: UserView) -> str:
    if not view.points:
        return "No interests yet."
    likely = ", ".join(f"{i.category} {i.probability:.0%}" for i in view.points[-1].interests[:3])
    return (
        f"Stacked areas of {view.user_id}'s interests over event time, {len(view.points)} lists, "
        f"{len(view.drifts)} drifts; the likeliest now: {likely}. The lists beside say the same."
    )
