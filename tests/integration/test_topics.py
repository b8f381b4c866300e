"""Topics are made as the worker needs them, and what is wrong with them is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient

from stream_app import admin as admin_requests
from stream_app import topics
from stream_app.errors import BrokerError, TopicError
from stream_app.settings import Settings


@pytest.fixture
def admin(settings: Settings) -> Iterator[Any]:
    admin = KafkaAdminClient(**settings.kafka_python())
    yield admin
    admin.close()


def make(admin: Any, name: str, partitions: int, **configs: str) -> None:
    config = {key.replace("_", "."): value for key, value in configs.items()}
    topic = {"num_partitions": partitions, "replication_factor": 1, "configs": config}
    admin.create_topics({name: topic}, wait_for_metadata=True)


def sentences(settings: Settings) -> list[str]:
    return [str(finding) for finding in topics.check(settings)]


def test_create_makes_what_check_wants(settings: Settings, admin: Any) -> None:
    made = topics.create(settings)

    assert {*settings.input_topics, settings.changelog_topic} <= set(made)
    assert set(made) <= set(admin.list_topics())
    assert topics.check(settings) == []


def test_create_again_does_nothing(settings: Settings) -> None:
    topics.create(settings)

    assert topics.create(settings) == []
    assert topics.check(settings) == []


def test_create_adds_what_is_missing(settings: Settings, admin: Any) -> None:
    make(admin, settings.clicks_topic, settings.partitions)

    made = topics.create(settings)

    assert settings.clicks_topic not in made
    assert settings.searches_topic in made


def test_create_refuses_other_partition_counts(settings: Settings, admin: Any) -> None:
    make(admin, settings.clicks_topic, settings.partitions + 1)

    with pytest.raises(TopicError, match=f"{settings.clicks_topic} has 5 partitions and 4"):
        topics.create(settings)

    assert settings.searches_topic not in admin.list_topics()


def test_check_names_every_missing_topic(settings: Settings) -> None:
    assert len(sentences(settings)) == 9
    assert all("run interest-stream topics create" in text for text in sentences(settings))


def test_check_names_unequal_partition_counts(settings: Settings, admin: Any) -> None:
    make(admin, settings.changelog_topic, 2, cleanup_policy="compact", min_insync_replicas="1")
    topics_of_4 = settings.model_copy(update={"app_id": "unused"})
    topics.create(topics_of_4)
    try:
        findings = sentences(settings)
    finally:
        topics.delete(topics_of_4)

    assert any(f"{settings.changelog_topic} has 2 partitions and 4" in text for text in findings)


@pytest.mark.parametrize(
    ("topic", "policy", "expected"),
    [
        ("clicks_topic", "compact", "would lose records"),
        ("dead_letters_topic", "delete", "keeps erased letters"),
        ("dead_letters_topic", "compact", "never lets go of old letters"),
        ("changelog_topic", "delete", "would lose rows"),
        ("changelog_topic", "compact,delete", "would lose rows"),
    ],
)
def test_check_names_a_wrong_policy(
    topic: str, policy: str, expected: str, settings: Settings, admin: Any
) -> None:
    name = getattr(settings, topic)
    make(admin, name, settings.partitions, cleanup_policy=policy, min_insync_replicas="1")
    topics.create(settings)

    (finding,) = topics.check(settings)

    assert finding.is_certain
    assert name in finding.sentence
    assert policy in finding.sentence
    assert expected in finding.sentence


def test_check_says_what_it_could_not_check(settings: Settings, admin: Any) -> None:
    make(admin, settings.clicks_topic, settings.partitions)
    topics.create(settings)

    findings = topics.check(settings)

    # A broker that reports its defaults leaves nothing open, the embedded one leaves both.
    assert all(not finding.is_certain for finding in findings)
    assert all("could not be checked" in finding.sentence for finding in findings)
    assert all(settings.clicks_topic in finding.sentence for finding in findings)
    assert len(findings) in (0, 2)


def test_check_names_too_few_replicas(settings: Settings) -> None:
    topics.create(settings)
    wanted = settings.model_copy(update={"replication": 3, "min_insync": 2})

    findings = sentences(wanted)

    assert sum("has 1 replicas and 3 are wanted" in text for text in findings) == 9
    assert sum("min.insync.replicas=1 and 2 is wanted" in text for text in findings) == 9


def test_delete_takes_all_away(settings: Settings, admin: Any) -> None:
    made = topics.create(settings)
    topics.delete(settings)
    topics.delete(settings)

    assert not set(made) & set(admin.list_topics())


def test_no_broker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_requests, "BROKER_TIMEOUT_S", 0.3)
    nowhere = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:9"})

    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:9"):
        topics.check(nowhere)


def test_topics_that_stay_are_unchanged(settings: Settings) -> None:
    topics.create(settings)
    topics.check_unchanged(settings, topics.epochs(settings))


def test_a_topic_that_was_made_anew_is_not_the_one_before(settings: Settings, admin: Any) -> None:
    topics.create(settings)
    known = topics.epochs(settings)
    if 0 in known:
        pytest.skip("this broker gives topics no ids")
    admin.delete_topics([settings.searches_topic])
    topics.create(settings)
    with pytest.raises(TopicError, match=f"{settings.searches_topic} was made anew"):
        topics.check_unchanged(settings, known)


def test_a_topic_with_more_partitions_is_not_the_one_before(settings: Settings, admin: Any) -> None:
    topics.create(settings)
    fewer = settings.model_copy(update={"partitions": settings.partitions - 1})
    with pytest.raises(TopicError, match=f"{settings.clicks_topic} has 4 partitions and 3"):
        topics.check_unchanged(fewer, topics.epochs(settings))
