"""The charts and panels of the live page: pure, and safe whatever the names are."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import msgspec

from stream_app.events import Share
from stream_app.ui import charts, panels, words
from stream_app.ui.history import Histories, UserView
from stream_app.ui.workers import Item, KnownUser, Liking, Step, Why
from tests.unit.test_ui_history import HOUR_MS, a_drift, a_list

EVIL = "<img src=x onerror=alert(1)>\"'"


def view_of(*likely: float, user: str = "ann") -> UserView:
    """A user with a list an hour and a drift with the last one."""
    histories = Histories()
    for number, probability in enumerate(likely):
        histories.add_recommendation(a_list(number, user, probability, sofas=0.2))
    histories.add_drift(a_drift(len(likely) - 1, user))
    return histories.user(user)


def series(options: charts.Options, name: str) -> charts.Options:
    (found,) = [one for one in options["series"] if one["name"] == name]
    return found


def test_the_chart_has_areas_uncertainty_and_marks_with_their_evidence() -> None:
    view = view_of(0.5, 0.4, 0.1)
    colours = charts.assign_colours({}, charts.top_categories(view.points))
    options = charts.user_chart(view, colours)
    assert sorted(colours) == ["sofas", "tea"]
    values = [datum["value"] for datum in series(options, "tea")["data"]]
    assert values[:3] == [[0, 0.5], [HOUR_MS, 0.4], [2 * HOUR_MS, 0.1]]
    assert values[3][0] > 2 * HOUR_MS  # the last list holds to the end of the axis
    assert values[3][1] == 0.1
    assert series(options, "tea")["stack"] == series(options, "sofas")["stack"]
    doubt = [datum["value"][1] for datum in series(options, "uncertainty")["data"]]
    assert doubt == [0.7] * 4
    (mark,) = series(options, "drift")["data"]
    assert mark["value"][0] == 2 * HOUR_MS
    assert "sofas, 1 Jan 1970 02:00, clicks:0:2" in mark["tip"]
    first = options["series"][0]
    assert first["markLine"]["data"] == [{"xAxis": 2 * HOUR_MS}]
    assert ["Evidence" in datum["tip"] for datum in first["data"]] == [False, False, True, True]
    json.dumps(options)


def test_a_chart_of_nothing_is_one() -> None:
    json.dumps(charts.user_chart(UserView("ann"), {}))
    json.dumps(charts.population_chart(Histories().population(6), {}))
    assert charts.sparkline([1.0]) == ""


def test_the_population_is_drawn_in_percent_with_the_drifts_below() -> None:
    histories = Histories()
    histories.add_recommendation(a_list(1, likely=0.6, sofas=0.2))
    histories.add_drift(a_drift(1))
    view = histories.population(6)
    options = charts.population_chart(view, charts.assign_colours({}, view.categories))
    assert [one["data"][0]["value"][1] for one in options["series"]] == [75.0, 25.0, 1]


def test_a_category_keeps_its_colour() -> None:
    before = charts.assign_colours({}, ["a", "b", "c"])
    after = charts.assign_colours(before, ["c", "d", "a"])
    assert (after["a"], after["c"]) == (before["a"], before["c"])
    assert len(set(after.values())) == 3
    many = charts.assign_colours(after, list("abcdefgh"))
    assert [c for c, colour in many.items() if colour == charts.REST] == ["g", "h"]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_names_from_outside_are_text() -> None:
    view = view_of(0.5, user=EVIL)
    evil_drift = msgspec.structs.replace(
        a_drift(0, EVIL),
        to=[Share(EVIL, 0.5)],
        evidence=[msgspec.structs.replace(a_drift(0).evidence[0], category=EVIL, topic=EVIL)],
    )
    known = KnownUser(
        user_id=EVIL,
        events=3,
        last_event=EVIL,
        interests=[Liking(EVIL, 0.5, 0.9, 0.3, 0.7)],
        items=[Item(EVIL, 1.0, Why(EVIL))],
        recent=[Step(EVIL, EVIL, EVIL, EVIL)],
        drift_statistic=1.0,
        drift_threshold=2.0,
        without=1,
    )
    other = KnownUser(user_id=EVIL, interests=[Liking("tea", 0.5)], items=[Item("a")], without=1)
    options = charts.user_chart(view, {EVIL: "#000000", "tea": "#111111"})
    written = [
        charts.drift_tip(evil_drift),
        *(datum["tip"] for datum in options["series"][0]["data"]),
        panels.meter(known),
        panels.likings_list(known.interests, {}),
        panels.items_list(known.items),
        panels.events_table(known),
        panels.drifts_list([evil_drift]),
        panels.without_table(known, other, 1),
        panels.without_table(other, known, 1),
    ]
    for one in written:
        tags = _Tags()
        tags.feed(one)
        assert "img" not in tags.found, one


def test_what_a_worker_leaves_out_hides_its_part_only() -> None:
    view = view_of(0.5)
    bare = KnownUser(user_id="ann")
    assert panels.likings(view, None) == panels.likings(view, bare)
    assert [one.category for one in panels.likings(view, bare)] == ["tea", "sofas"]
    assert [one.item_id for one in panels.items(view, bare)] == ["item-0"]
    assert panels.meter(bare) == panels.meter(None) == ""
    assert "1 drift raised" in panels.summary(view, None)
    assert "A worker knows them" in panels.events_table(bare)
    stated = KnownUser(user_id="ann", interests=[Liking("sofas", 0.9)], items=[Item("sofa-1")])
    assert panels.likings(view, stated) == stated.interests
    assert panels.items(view, stated) == stated.items


def test_the_chart_ends_with_what_the_worker_states() -> None:
    view = view_of(0.5, 0.4)
    hour = KnownUser(user_id="ann", last_event="1970-01-01T01:00:00Z", interests=[Liking("x", 1.0)])
    assert panels.up_to_now(view, None) == panels.up_to_now(view, hour) == view
    later = msgspec.structs.replace(hour, last_event="1970-01-01T02:00:00Z")
    *_, last = panels.up_to_now(view, later).points
    assert last == (2 * HOUR_MS, (("x", 1.0, 0.0),))
    assert charts.top_categories(panels.up_to_now(view, later).points)[0] == "x"


def test_what_the_last_events_changed() -> None:
    now = KnownUser(
        user_id="ann",
        interests=[Liking("tea", 0.7), Liking("sofas", 0.2), Liking("new", 0.1)],
        items=[Item("tea-1"), Item("sofa-1")],
    )
    then = KnownUser(
        user_id="ann",
        interests=[Liking("tea", 0.4), Liking("sofas", 0.2), Liking("old", 0.3)],
        items=[Item("sofa-1"), Item("sofa-2")],
        without=5,
    )
    table = panels.without_table(now, then, 5)
    assert "<th scope='row'>tea</th><td>40%</td><td>70%</td><td>▲ 30 points</td>" in table
    assert "<th scope='row'>sofas</th><td>20%</td><td>20%</td><td>the same</td>" in table
    assert "<th scope='row'>old</th><td>30%</td><td>–</td><td>left the list</td>" in table
    assert "<th scope='row'>new</th><td>–</td><td>10%</td><td>new on the list</td>" in table
    assert "On the list because of these events: <b>tea-1</b>" in table
    assert "As if the last 5 events had not been.</p>" in table
    assert "as far back as the row goes" in panels.without_table(now, then, 6)
    assert "The same items" in panels.without_table(then, then, 5)
    assert "keeps no state" in panels.without_table(then, now, 5)


def test_words() -> None:
    assert words.moment_of("2026-01-26T14:02:00+00:00") == "26 Jan 2026 14:02"
    assert words.moment_of(None) == words.NONE
    assert words.milliseconds(284.6) == "285 ms"
    assert words.milliseconds(1_234.0) == "1.2 s"
    drift = msgspec.structs.replace(a_drift(1), evidence=a_drift(1).evidence * 9)
    assert words.evidence(drift)[-1] == "and 3 more"
