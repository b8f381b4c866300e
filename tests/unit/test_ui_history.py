"""What the live page remembers of the output topics, and its bounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import msgspec
import numpy as np
import pytest
from kafka import TopicPartition

from stream_app.dead_letters import dead_letter
from stream_app.events import (
    Drift,
    Evidence,
    Interest,
    Recommendation,
    RecommendationReason,
    RecommendedItem,
    Share,
    Source,
    encode_output,
)
from stream_app.output_format import packing
from stream_app.settings import OutputFormat, Settings
from stream_app.ui import history, population
from stream_app.ui.feed import TopicFeed
from stream_app.ui.history import Histories
from stream_app.ui.population import Population

HOUR_MS = 3_600_000


def a_list(number: int, user: str = "ann", likely: float = 0.5, **more: float) -> Recommendation:
    """A recommendation at hour ``number``; ``more`` are probabilities of further categories."""
    interests = [Interest("tea", likely, 0.9), *(Interest(c, p, 0.5) for c, p in more.items())]
    return Recommendation(
        id=f"recommendation:clicks:0:{number}:{user}",
        user_id=user,
        timestamp=number * HOUR_MS,
        source=Source("clicks", 0, number),
        trigger="interval",
        items=[RecommendedItem(f"item-{number}", 1.0, RecommendationReason("trending", "popular"))],
        interests=interests,
        diversity=0.5,
        model_version="1",
    )


def a_drift(number: int, user: str = "ann") -> Drift:
    """A drift at hour ``number``."""
    return Drift(
        id=f"drift:clicks:0:{number}:{user}",
        user_id=user,
        timestamp=number * HOUR_MS,
        source=Source("clicks", 0, number),
        from_=[Share("tea", 0.6)],
        to=[Share("sofas", 0.7)],
        since=(number - 1) * HOUR_MS,
        strength=0.5,
        confidence=0.9,
        statistic=2.5,
        threshold=2.0,
        window_units=8,
        false_alarms_per_1000_users_per_30d=1.0,
        average_run_length=1000.0,
        evidence=[Evidence("clicks", 0, number, number * HOUR_MS, "sofas")],
        model_version="1",
    )


def test_a_user_has_points_drifts_and_the_last_list_by_event_time() -> None:
    histories = Histories()
    for number in (2, 1, 3):
        histories.add_recommendation(a_list(number, sofas=0.25))
    histories.add_drift(a_drift(2))
    view = histories.user("ann")
    assert [point.time_ms // HOUR_MS for point in view.points] == [1, 2, 3]
    assert view.points[0].interests == (("tea", 0.5, 0.9), ("sofas", 0.25, 0.5))
    assert [drift.timestamp // HOUR_MS for drift in view.drifts] == [2]
    assert view.last is not None
    assert [item.item_id for item in view.last.items] == ["item-3"]
    assert histories.user("bob").points == ()


def test_a_repeated_output_counts_once() -> None:
    histories = Histories()
    for _ in range(3):
        histories.add_recommendation(a_list(1))
        histories.add_drift(a_drift(1))
    counts = histories.counts()
    assert (counts.recommendations, counts.drifts, counts.repeats, counts.users) == (1, 1, 4, 1)
    assert len(histories.user("ann").points) == len(histories.drifts()) == 1
    assert histories.population(6).lists == [1]


def test_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_USERS": 3, "MAX_DRIFTS": 4, "MAX_IDS": 10, "MAX_LETTERS": 2}.items():
        monkeypatch.setattr(history, name, value)
    histories = Histories()
    for number in range(history.MAX_POINTS + 5):
        histories.add_recommendation(a_list(number, "ann"))
    for number in range(30):
        histories.add_drift(a_drift(number, f"user-{number % 5}"))
    for number in range(5):
        histories.add_letter(b"clicks:0:%d" % number, "invalid_json")
    assert histories.counts().users == 3
    assert histories.user("user-4").drifts
    assert not histories.user("ann").points  # nobody has heard of ann for longest
    assert [drift.timestamp // HOUR_MS for drift in histories.drifts()] == [29, 28, 27, 26]
    assert histories.counts().letters == {"invalid_json": 2}
    assert len(histories._ids) == 10


def test_a_user_keeps_the_last_points() -> None:
    histories = Histories()
    for number in range(history.MAX_POINTS + 5):
        histories.add_recommendation(a_list(number))
    points = histories.user("ann").points
    assert len(points) == history.MAX_POINTS
    assert points[0].time_ms == 5 * HOUR_MS


def test_an_erased_user_is_forgotten_and_a_deleted_letter_taken_back() -> None:
    settings = Settings()
    histories = Histories()
    feed = TopicFeed(settings, histories)

    def take(topic: str, key: bytes, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        record = SimpleNamespace(key=key, value=value, headers=headers, timestamp=1, offset=1)
        feed.take({TopicPartition(topic, 0): [record]})

    letter = dead_letter("clicks", 0, 7, b"ann", b"{", "invalid_json", "No JSON.", 100)
    take(settings.dead_letters_topic, letter.key, letter.value, letter.headers)
    take(settings.recommendations_topic, b"ann", encode_output(a_list(1)), [])
    take(settings.drift_topic, b"ann", encode_output(a_drift(1)), [])
    take(settings.drift_topic, b"ann", b"no message", [])  # passed over
    assert histories.counts().letters == {"invalid_json": 1}
    assert histories.user("ann").points
    assert histories.drifts()

    take(settings.dead_letters_topic, letter.key, None, [])
    take(settings.recommendations_topic, b"ann", None, [])
    assert histories.counts().letters == {}
    assert not histories.user("ann").points
    assert not histories.drifts()


@pytest.mark.parametrize("output_format", get_args(OutputFormat))
def test_outputs_are_read_in_every_format(output_format: OutputFormat) -> None:
    settings = Settings()
    histories = Histories()
    feed = TopicFeed(settings, histories)
    pack = packing(output_format, "shop-1")
    for kind, topic, message in (
        ("drift", settings.drift_topic, a_drift(1)),
        ("recommendation", settings.recommendations_topic, a_list(1)),
    ):
        ((key, value, headers),) = pack(kind, [(b"ann", encode_output(message))])
        record = SimpleNamespace(key=key, value=value, headers=headers, timestamp=1, offset=1)
        feed.take({TopicPartition(topic, 0): [record]})
    counts = histories.counts()
    assert (counts.recommendations, counts.drifts) == (1, 1)
    broken = SimpleNamespace(
        key=b"ann", value=b"{}", headers=[("ce_specversion", b"9")], timestamp=1, offset=2
    )
    feed.take({TopicPartition(settings.drift_topic, 0): [broken]})  # passed over
    assert histories.counts() == counts


def test_the_population_is_the_share_of_all_probabilities() -> None:
    found = Population()
    found.add(0, [("tea", 0.6), ("sofas", 0.2)])
    found.add(60_000, [("tea", 0.2)])
    found.add(10 * HOUR_MS, [("sofas", 0.5), ("coffee", 0.5)])
    found.add_drift(10 * HOUR_MS + 1)
    view = found.view(2)
    assert view.categories == ["tea", "sofas"]
    np.testing.assert_allclose(view.shares, [[0.8, 0.2], [0.0, 0.5]])
    assert view.drifts == [0, 1]
    assert view.lists == [2, 1]


def test_the_population_keeps_few_stretches_and_few_categories(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(population, "MAX_CATEGORIES", 8)
    found = Population()
    for number in range(40 * 365):
        found.add(number * HOUR_MS, [(f"category-{number % 20}", 0.5)])
    view = found.view(6)
    assert len(found._stretches) <= population.MAX_STRETCHES + 1
    assert view.width_ms == population.LAST_WIDTH_MS
    assert all(len(stretch.sums) <= 8 for stretch in found._stretches.values())
    assert view.times_ms[-1] == (40 * 365 - 1) * HOUR_MS // view.width_ms * view.width_ms


def test_an_event_from_long_ago_stretches_no_axis() -> None:
    found = Population()
    found.add(0, [("tea", 0.5)])
    for number in range(500):
        found.add(20_000 * HOUR_MS + number, [("tea", 0.5)])
    assert len(found.view(6).times_ms) == 1


def test_packing_keeps_what_is_shown() -> None:
    message = a_list(1, likely=0.1234)
    histories = Histories()
    histories.add_recommendation(message)
    (point,) = histories.user("ann").points
    assert point.interests[0].probability == 0.1234
    other = msgspec.structs.replace(message, id="other", interests=[])
    histories.add_recommendation(other)
    assert histories.user("ann").points[-1].interests == ()
