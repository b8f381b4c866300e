"""The charts as ECharts takes them; pure. Texts that came from outside are escaped.

Colours are those of Okabe and Ito, which colour-blind people tell apart; those of text and lines
are variables of the style sheet, so that the charts follow the light and dark of the system. That
takes ECharts' SVG renderer, and no emphasis, which would calculate with the colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from stream_app.events import Drift
from stream_app.ui import words
from stream_app.ui.history import Point, UserView
from stream_app.ui.population import PopulationView

TOP = 6
"""Categories that get a colour."""
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
REST = "#8C8C8C"
Options = dict[str, Any]

# The first series that has a text for the place gives it: the texts are made here, escaped.
_TIP = "p => [].concat(p).map(q => q.data && q.data.tip).find(Boolean) || ''"


def top_categories(points: Sequence[Point], top: int = TOP) -> list[str]:
    """The likeliest categories of now, and then those that were likely most of the time."""
    if not points:
        return []
    now = [interest.category for interest in points[-1].interests[: top - 2]]
    weight: dict[str, float] = {}
    for point in points:
        for interest in point.interests:
            weight[interest.category] = weight.get(interest.category, 0.0) + interest.probability
    rest = sorted(weight, key=lambda category: (-weight[category], category))
    return list(dict.fromkeys([*now, *rest]))[:top]


def assign_colours(before: Mapping[str, str], categories: Sequence[str]) -> dict[str, str]:
    """A colour for each category, which keeps the one it had."""
    kept = {c: before[c] for c in categories if c in before}
    free = (colour for colour in PALETTE if colour not in kept.values())
    return {c: kept[c] if c in kept else next(free, REST) for c in categories}


def user_chart(view: UserView, colours: Mapping[str, str]) -> Options:
    """Interests of a user over event time, their uncertainty, and the drifts.

    Three bands over one time axis: marks of the drifts, probabilities of the coloured categories
    one on the other, and the mean uncertainty of these. Each list holds until the next one.
    """
    points = view.points
    raised = {drift.timestamp: drift for drift in view.drifts}
    times = [*(p.time_ms for p in points), *raised]
    first, last = (min(times), max(times)) if times else (0, 0)
    last += max((last - first) // 30, 60_000)  # so that the last list is seen, too
    places = [*((p.time_ms, p) for p in points), *((last, p) for p in points[-1:])]
    series: list[Options] = []
    for place, (category, colour) in enumerate(colours.items()):
        data: list[Options] = []
        for time_ms, point in places:
            likely = {i.category: i.probability for i in point.interests}
            datum: Options = {"value": [time_ms, likely.get(category, 0.0)]}
            if place == 0:
                datum["tip"] = _point_tip(point, raised.get(point.time_ms), colours)
            data.append(datum)
        series.append({**_area(place, category, colour, data, "interests", 1), "step": "end"})
    if series:
        series[0]["markLine"] = {
            "silent": True,
            "symbol": "none",
            "label": {"show": False},
            "lineStyle": {"color": "var(--drift)", "type": "dashed", "width": 1.5},
            "data": [{"xAxis": time_ms} for time_ms in raised],
        }
    series.append(
        {
            "name": "uncertainty",
            "type": "line",
            "step": "end",
            "symbol": "none",
            "emphasis": {"disabled": True},
            "xAxisIndex": 2,
            "yAxisIndex": 2,
            "color": "var(--muted)",
            "lineStyle": {"width": 1.5},
            "areaStyle": {"opacity": 0.15},
            "data": [
                {"value": [time_ms, _mean_uncertainty(p, colours)], "tip": _doubt_tip(p, colours)}
                for time_ms, p in places
            ],
        }
    )
    series.append(
        {
            "name": "drift",
            "type": "scatter",
            "symbol": "diamond",
            "symbolSize": 15,
            "emphasis": {"disabled": True},
            "xAxisIndex": 0,
            "yAxisIndex": 0,
            "color": "var(--drift)",
            "data": [
                {"value": [time_ms, 0.5], "tip": drift_tip(drift)}
                for time_ms, drift in raised.items()
            ],
        }
    )
    left, right = 44, 14
    return {
        **_common(),
        "grid": [
            {"left": left, "right": right, "top": 4, "height": 20},
            {"left": left, "right": right, "top": 46, "bottom": 104},
            {"left": left, "right": right, "height": 40, "bottom": 24},
        ],
        "xAxis": [
            _time_axis(0, first, last, labels=False),
            _time_axis(1, first, last, labels=False),
            _time_axis(2, first, last, labels=True),
        ],
        "yAxis": [
            {"gridIndex": 0, "min": 0, "max": 1, "show": False},
            _value_axis(1, "probability, stacked"),
            {**_value_axis(2, "uncertainty, bits"), "min": 0, "max": 1, "interval": 1},
        ],
        "series": series,
    }


def population_chart(view: PopulationView, colours: Mapping[str, str]) -> Options:
    """Shares of the interest of all users over event time, and how many drifts were raised."""
    series: list[Options] = []
    middle = view.width_ms // 2
    times = [time_ms + middle for time_ms in view.times_ms]
    for place, category in enumerate(view.categories):
        data: list[Options] = []
        for row, time_ms in enumerate(times):
            datum: Options = {"value": [time_ms, round(float(view.shares[row, place]) * 100, 2)]}
            if place == 0:
                datum["tip"] = _population_tip(view, row, colours)
            data.append(datum)
        colour = colours.get(category, REST)
        series.append(_area(place, category, colour, data, "population", 0))
    series.append(
        {
            "name": "drifts",
            "type": "bar",
            "xAxisIndex": 1,
            "yAxisIndex": 1,
            "barMaxWidth": 10,
            "emphasis": {"disabled": True},
            "color": "var(--drift)",
            "data": [
                {"value": [time_ms, drifts], "tip": _population_tip(view, row, colours)}
                for row, (time_ms, drifts) in enumerate(zip(times, view.drifts, strict=True))
            ],
        }
    )
    first, last = (times[0], times[-1]) if times else (0, 0)
    return {
        **_common(),
        "grid": [
            {"left": 44, "right": 14, "top": 26, "bottom": 96},
            {"left": 44, "right": 14, "height": 34, "bottom": 24},
        ],
        "xAxis": [
            _time_axis(0, first, last, labels=False),
            _time_axis(1, first, last, labels=True),
        ],
        "yAxis": [
            {**_value_axis(0, "share of the interest, %"), "min": 0},
            {**_value_axis(1, "drifts raised"), "min": 0, "splitNumber": 1, "minInterval": 1},
        ],
        "series": series,
    }


def drift_tip(drift: Drift) -> str:
    """A drift with its evidence, as HTML."""
    lines = "".join(f"<br>{escape(line)}" for line in words.evidence(drift))
    return (
        f"<b>Drift raised {escape(words.moment(drift.timestamp))}</b><br>"
        f"{escape(words.shares(drift.from_))} → <b>{escape(words.shares(drift.to))}</b><br>"
        f"{escape(words.drift_strength(drift))}<br><b>Evidence</b>{lines or '<br>–'}"
    )


def _point_tip(point: Point, drift: Drift | None, colours: Mapping[str, str]) -> str:
    rows = "".join(
        f"<br>{_swatch(colours.get(i.category, REST))}{escape(i.category)} "
        f"<b>{words.percent(i.probability)}</b>, {i.uncertainty:.2f} bits"
        for i in point.interests
        if i.category in colours
    )
    raised = f"<br><br>{drift_tip(drift)}" if drift is not None else ""
    return f"<b>{escape(words.moment(point.time_ms))}</b>{rows}{raised}"


def _doubt_tip(point: Point, colours: Mapping[str, str]) -> str:
    mean = _mean_uncertainty(point, colours)
    return f"<b>{escape(words.moment(point.time_ms))}</b><br>mean uncertainty {mean:.2f} bits"


def _population_tip(view: PopulationView, row: int, colours: Mapping[str, str]) -> str:
    rows = "".join(
        f"<br>{_swatch(colours.get(category, REST))}{escape(category)} "
        f"<b>{words.percent(float(view.shares[row, place]))}</b>"
        for place, category in enumerate(view.categories)
    )
    return (
        f"<b>{escape(words.moment(view.times_ms[row]))}</b>{rows}<br>"
        f"{view.lists[row]:,} lists, {view.drifts[row]:,} drifts"
    )


def _swatch(colour: str) -> str:
    return (
        f'<span style="display:inline-block;width:10px;height:10px;margin-right:6px;'
        f'background:{colour}"></span>'
    )


def _mean_uncertainty(point: Point, colours: Mapping[str, str]) -> float:
    found = [i.uncertainty for i in point.interests if i.category in colours]
    return round(sum(found) / len(found), 3) if found else 0.0


def _area(
    place: int, name: str, colour: str, data: list[Options], stack: str, grid: int
) -> Options:
    return {
        # ECharts merges a new series with the one of its id, and without one by its name: the marks
        # of the first series would stay where that name was first before.
        "id": f"{stack}-{place}",
        "name": name,
        "type": "line",
        "stack": stack,
        "xAxisIndex": grid,
        "yAxisIndex": grid,
        "color": colour,
        "symbol": "circle",
        "showSymbol": len(data) == 1,
        "lineStyle": {"width": 0.5},
        "areaStyle": {"opacity": 0.8},
        "emphasis": {"disabled": True},
        "data": data,
    }


def _common() -> Options:
    return {
        "animation": False,
        "useUTC": True,
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "backgroundColor": "var(--card)",
            "borderColor": "var(--line)",
            "textStyle": {"color": "var(--ink)", "fontSize": 13},
            "axisPointer": {"lineStyle": {"color": "var(--muted)"}},
            ":formatter": _TIP,
        },
    }


def _time_axis(grid: int, first: int, last: int, labels: bool) -> Options:
    return {
        "type": "time",
        "gridIndex": grid,
        "min": first,
        "max": max(last, first + 1),
        "axisLine": {"show": labels, "lineStyle": {"color": "var(--line)"}},
        "axisTick": {"show": labels, "lineStyle": {"color": "var(--line)"}},
        "axisLabel": {"show": labels, "color": "var(--muted)", "hideOverlap": True},
        "splitLine": {"show": False},
        "splitNumber": 4,
    }


def _value_axis(grid: int, name: str) -> Options:
    return {
        "type": "value",
        "gridIndex": grid,
        "name": name,
        "nameLocation": "end",
        "nameGap": 8,
        "nameTextStyle": {"color": "var(--muted)", "align": "left", "padding": [0, 0, 0, -38]},
        "axisLabel": {"color": "var(--muted)"},
        "splitLine": {"lineStyle": {"color": "var(--line)"}},
        "splitNumber": 3,
    }


def sparkline(values: Iterable[float], width: int = 120, height: int = 26) -> str:
    """A small line of numbers as SVG, from zero up; empty without two of them."""
    found = list(values)
    if len(found) < 2:
        return ""
    highest = max(max(found), 1e-9)
    step = width / (len(found) - 1)
    places = " ".join(
        f"{place * step:.1f},{height - 1 - (height - 3) * value / highest:.1f}"
        for place, value in enumerate(found)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true" '
        f'focusable="false"><polyline points="{places}" /></svg>'
    )
