"""What the page says of one user, as HTML; pure. Every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

from stream_app.events import Drift
from stream_app.ui import words
from stream_app.ui.charts import REST
from stream_app.ui.history import KnownInterest, Point, UserView
from stream_app.ui.workers import Item, KnownUser, Liking, Why

SHOWN_INTERESTS = 8
SHOWN_DRIFTS = 5
SHOWN_ITEMS = 10
SMALLEST_CHANGE = 0.005
UNKNOWN = "(unknown)"
"""What a worker calls an item or category that an event has not, or the model does not know."""


def up_to_now(view: UserView, known: KnownUser | None) -> UserView:
    """The view with the interests that the worker states, behind those of the last list."""
    now_ms = None if known is None else words.time_ms_of(known.last_event)
    if known is None or now_ms is None or not known.interests:
        return view
    if view.points and view.points[-1].time_ms >= now_ms:
        return view
    interests = tuple(
        KnownInterest(one.category, one.probability, one.uncertainty or 0.0)
        for one in known.interests
    )
    return replace(view, points=(*view.points, Point(now_ms, interests)))


def likings(view: UserView, known: KnownUser | None) -> list[Liking]:
    """The interests of now: as the worker states them, or else as the last list did."""
    if known is not None and known.interests:
        return known.interests
    if not view.points:
        return []
    return [Liking(*interest) for interest in view.points[-1].interests]


def items(view: UserView, known: KnownUser | None) -> list[Item]:
    """The recommendations of now: as the worker makes them, or else those of the last list."""
    if known is not None and known.items:
        return known.items
    if view.last is None:
        return []
    return [Item(i.item_id, i.score, Why(i.reason.text, i.reason.kind)) for i in view.last.items]


def summary(view: UserView, known: KnownUser | None) -> str:
    """A sentence or two on the user, as text."""
    parts = []
    if known is not None and known.events is not None:
        parts.append(f"{known.events:,} events, the last {words.moment_of(known.last_event)} UTC.")
    elif view.points:
        parts.append(f"Last list {words.moment(view.points[-1].time_ms)} UTC.")
    drifts = known.drifts if known is not None and known.drifts is not None else len(view.drifts)
    parts.append(f"{drifts} drift{'' if drifts == 1 else 's'} raised.")
    return " ".join(parts)


def meter(known: KnownUser | None) -> str:
    """How near the drift test is to an alarm."""
    if known is None or known.drift_threshold is None:
        return ""
    if known.drift_statistic is None:
        return "<span>Drift test: not enough events yet</span>"
    statistic, threshold = known.drift_statistic, known.drift_threshold
    label = f"Drift test {statistic:.2f}, alarm at {threshold:.2f}"
    return (
        f"<span>{label}</span>"
        f'<meter min="0" max="{max(threshold, 0.001):.3f}" value="{max(statistic, 0):.3f}" '
        f'high="{0.75 * threshold:.3f}" aria-label="{label}"></meter>'
    )


def likings_list(found: Sequence[Liking], colours: Mapping[str, str]) -> str:
    """Interests as bars, with the bounds where they are known: legend and table of the chart."""
    rows = []
    for one in found[:SHOWN_INTERESTS]:
        note = "" if one.uncertainty is None else f"{one.uncertainty:.2f} bits"
        band = ""
        if one.low is not None and one.high is not None:
            note = f"{words.percent(one.low)} to {words.percent(one.high)}"
            left, right = _within(one.low) * 100, _within(one.high) * 100
            width = max(right - left, 0.5)
            band = f'<i class="band" style="left:{left:.1f}%;width:{width:.1f}%"></i>'
        rows.append(
            f'<li><i class="swatch" style="background:{colours.get(one.category, REST)}"></i>'
            f'<span class="name">{escape(one.category)}</span>'
            f'<b>{words.percent(one.probability)}</b><span class="note">{note}</span>'
            f'<span class="bar"><i style="width:{_within(one.probability) * 100:.1f}%"></i>{band}'
            "</span></li>"
        )
    return f'<ul class="likings">{"".join(rows)}</ul>' if rows else _empty("No interests yet.")


def drifts_list(drifts: Sequence[Drift]) -> str:
    """The drifts of a user with their evidence, the latest first."""
    if not drifts:
        return _empty("None was raised for this user.")
    rows = []
    for drift in list(reversed(drifts))[:SHOWN_DRIFTS]:
        lines = "".join(f"<li>{escape(line)}</li>" for line in words.evidence(drift))
        rows.append(
            f"<li><b>{escape(words.moment(drift.timestamp))}</b> "
            f"{escape(words.shares(drift.from_))} → <b>{escape(words.shares(drift.to))}</b>"
            f'<div class="note">{escape(words.drift_strength(drift))}</div>'
            f'<ul class="note">{lines}</ul></li>'
        )
    return f'<ol class="plain">{"".join(rows)}</ol>'


def items_list(found: Sequence[Item]) -> str:
    """Recommended items with their reasons, best first."""
    rows = [
        f'<li><b>{escape(one.item_id)}</b><div class="note">'
        f"{escape(one.reason.text) if one.reason is not None else ''}</div></li>"
        for one in found[:SHOWN_ITEMS]
    ]
    return f'<ol class="items">{"".join(rows)}</ol>' if rows else _empty("No list yet.")


def events_table(known: KnownUser | None) -> str:
    """The last events, the latest first."""
    if known is None or not known.recent:
        return _empty("A worker knows them; none answered for this user.")
    rows = "".join(
        f"<tr><td>{escape(words.moment_of(step.time))}</td><td>{escape(step.kind)}</td>"
        f"<td class='long'>{_name(step.item_id)} <span class='note'>{_name(step.category)}"
        "</span></td></tr>"
        for step in known.recent
    )
    return (
        "<table><thead><tr><th scope='col'>time, UTC</th><th scope='col'>event</th>"
        f"<th scope='col'>item, category</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _name(found: str) -> str:
    return "" if found == UNKNOWN else escape(found)


def without_table(known: KnownUser, other: KnownUser, asked: int) -> str:
    """What changes when the last events are left out: interests, and the items on the list.

    Args:
        other: the answer without them, which may leave out fewer than were asked for.
    """
    left_out = other.without or 0
    if not left_out:
        return _empty("The row keeps no state from before its last event yet.")
    far = " That is as far back as the row goes now." if left_out < asked else ""
    events = "the last event" if left_out == 1 else f"the last {left_out} events"
    now = {one.category: one.probability for one in known.interests}
    then = {one.category: one.probability for one in other.interests}
    # what is below the listed ones of either side is not known of it
    listed = list(dict.fromkeys([*now, *then]))
    listed.sort(key=lambda c: -abs(now.get(c, 0.0) - then.get(c, 0.0)))
    rows = "".join(_change(c, now.get(c), then.get(c)) for c in listed[:SHOWN_INTERESTS])
    return (
        f"<p>As if {events} had not been.{far}</p>"
        "<table class='change'><thead><tr><th scope='col'>category</th>"
        "<th scope='col'>without</th><th scope='col'>now</th><th scope='col'>change</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>{_items_that_came(known.items, other.items)}"
    )


def _change(category: str, now: float | None, then: float | None) -> str:
    if now is None or then is None:
        change = "new on the list" if then is None else "left the list"
    elif abs(now - then) < SMALLEST_CHANGE:
        change = "the same"
    else:
        arrow = "▲" if now > then else "▼"
        change = f"{arrow} {abs(now - then) * 100:.0f} points"
    shown = [words.NONE if value is None else words.percent(value) for value in (then, now)]
    return (
        f"<tr><th scope='row'>{escape(category)}</th><td>{shown[0]}</td><td>{shown[1]}</td>"
        f"<td>{change}</td></tr>"
    )


def _items_that_came(now: Sequence[Item], then: Sequence[Item]) -> str:
    if not now or not then:
        return ""
    before = {one.item_id for one in then}
    came = [one.item_id for one in now if one.item_id not in before]
    if not came:
        return "<p>The same items would be recommended.</p>"
    names = ", ".join(escape(name) for name in came)
    return f"<p>On the list because of these events: <b>{names}</b></p>"


def _within(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _empty(sentence: str) -> str:
    return f'<p class="empty">{escape(sentence)}</p>'
