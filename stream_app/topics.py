"""The topics: made as the worker needs them, and checked before it starts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from kafka.admin import ConfigResource
from kafka.errors import TopicAlreadyExistsError, for_code

from stream_app.admin import admin_client
from stream_app.errors import TopicError
from stream_app.settings import Settings

OUTPUT_FIELDS = ("drift_topic", "recommendations_topic", "dead_letters_topic")
"""Settings that name the topics which a worker writes for others."""

_POLICY = "cleanup.policy"
_MIN_INSYNC = "min.insync.replicas"
_SEGMENT_BYTES = "segment.bytes"
COMPACTED_SEGMENT_BYTES = 50 * 1024 * 1024
"""Of topics whose keys come again: brokers compact a segment when the next one is begun, and one of
their usual GiB would hold each row hundreds of times. Kafka Streams makes its changelogs so."""


Policy = Literal["compact", "delete", "compact,delete"]


@dataclass(frozen=True)
class Finding:
    """One sentence of `check`; `is_certain` is false for what the broker does not report."""

    sentence: str
    is_certain: bool = True

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Layout:
    """How a topic is made, or is; the configuration of one that is has what the broker reports."""

    partitions: int
    replication: int
    config: dict[str, str]


@dataclass(frozen=True)
class _Topic:
    """How a topic has to be. With policy None either policy will do, and `delete` is made."""

    name: str
    policy: Policy | None


def layouts(settings: Settings) -> dict[str, Layout]:
    """How each topic is made, by its name."""
    return {
        topic.name: Layout(settings.partitions, settings.replication, _configs(topic, settings))
        for topic in _topics(settings)
    }


def create(settings: Settings) -> list[str]:
    """Make the topics that are missing, and return their names.

    Raises:
        TopicError: a topic has another number of partitions, or the broker refuses to make it.
        BrokerError: no broker answers.
    """
    wanted = layouts(settings)
    with admin_client(settings) as admin:
        found = _describe(admin, list(wanted))
        for name, topic in found.items():
            if topic.partitions != settings.partitions:
                raise TopicError(_unequal(name, topic.partitions, settings))
        missing = [name for name in wanted if name not in found]
        if not missing:
            return []
        response = admin.create_topics(
            {
                name: {
                    "num_partitions": wanted[name].partitions,
                    "replication_factor": wanted[name].replication,
                    "configs": wanted[name].config,
                }
                for name in missing
            },
            raise_errors=False,
        )
        for result in response["topics"]:
            error = for_code(result["error_code"])
            if result["error_code"] and error is not TopicAlreadyExistsError:
                cause = result.get("error_message") or error.__name__
                raise TopicError(
                    f"Topic {result['name']} cannot be made ({cause}); check the settings and the "
                    "rights of the user."
                )
        admin.wait_for_topics(missing)
        # Another process may have made them at the same time, in its own way.
        for name, topic in _describe(admin, missing).items():
            if topic.partitions != settings.partitions:
                raise TopicError(_unequal(name, topic.partitions, settings))
    return missing


def check(settings: Settings) -> list[Finding]:
    """What is wrong with the topics, and what could not be checked; empty when all is well.

    Raises:
        BrokerError: no broker answers.
    """
    wanted = _topics(settings)
    with admin_client(settings) as admin:
        found = _describe(admin, [topic.name for topic in wanted])
        mixed = _describe(admin, list(settings.adapters))
    findings: list[Finding] = []
    for name in settings.adapters:
        if name not in mixed:
            findings.append(Finding(_missing_adapter(name)))
        elif (policy := mixed[name].config.get(_POLICY)) is not None:
            findings += _compare_policy(name, "delete", policy)
    for topic in wanted:
        if topic.name in found:
            findings += _compare(topic, found[topic.name], settings)
        else:
            sentence = f"Topic {topic.name} is missing; run interest-stream topics create."
            findings.append(Finding(sentence))
    return findings


def epochs(settings: Settings) -> tuple[int, int, int]:
    """Per input topic a number of 32 bits that changes when the topic is made anew.

    It is a hash of the topic's id; 0 where the broker gives topics no id.

    Raises:
        BrokerError: no broker answers.
    """
    with admin_client(settings) as admin:
        ids = {topic["name"]: topic.get("topic_id") for topic in admin.describe_topics()}
    a, b, c = (_epoch(ids.get(name)) for name in settings.input_topics)
    return a, b, c


def adapter_epochs(settings: Settings) -> dict[str, int]:
    """Per topic of INTEREST_ADAPTER_TOPICS its epoch, see `epochs`.

    Raises:
        TopicError: a topic is missing.
        BrokerError: no broker answers.
    """
    with admin_client(settings) as admin:
        ids = {topic["name"]: topic.get("topic_id") for topic in admin.describe_topics()}
    for name in settings.adapters:
        if name not in ids:
            raise TopicError(_missing_adapter(name))
    return {name: _epoch(ids[name]) for name in settings.adapters}


def check_unchanged(settings: Settings, known: tuple[int, int, int]) -> None:
    """Refuse input topics that are no longer those that a worker began with.

    known are the `epochs` that it began with.

    Raises:
        TopicError: a topic was made anew, or has another number of partitions now: those that are
            new are read by nobody.
        BrokerError: no broker answers.
    """
    with admin_client(settings) as admin:
        found = {topic["name"]: topic for topic in admin.describe_topics()}
    for name, epoch in zip(settings.input_topics, known, strict=True):
        topic = found.get(name, {})
        if _epoch(topic.get("topic_id")) != epoch:
            raise TopicError(
                f"{name} was made anew while the worker ran; start the worker again, it begins the "
                "topic at its first record and keeps the rows."
            )
        partitions = len(topic.get("partitions", ()))
        if partitions not in (0, settings.partitions):
            raise TopicError(_unequal(name, partitions, settings))


def _epoch(topic_id: str | None) -> int:
    if topic_id is None or not UUID(str(topic_id)).int:
        return 0
    digest = hashlib.sha256(UUID(str(topic_id)).bytes).digest()
    return int.from_bytes(digest[:4], "little") or 1


def partition_count(settings: Settings, name: str) -> int:
    """The number of partitions of a topic.

    Raises:
        TopicError: it is missing.
        BrokerError: no broker answers.
    """
    return _partition_counts(settings, [name])[name]


def check_counts(settings: Settings) -> None:
    """Refuse to address records by another number of partitions than the input topics have.

    Raises:
        TopicError: a topic is missing, or has another number; the sentence says which.
        BrokerError: no broker answers.
    """
    for topic, count in _partition_counts(settings, list(settings.input_topics)).items():
        if count != settings.partitions:
            raise TopicError(
                f"Topic {topic} has {count} partitions and INTEREST_PARTITIONS is "
                f"{settings.partitions}; set it to {count}."
            )


def _partition_counts(settings: Settings, names: list[str]) -> dict[str, int]:
    with admin_client(settings) as admin:
        found = _describe(admin, names)
    for name in names:
        if name not in found:
            raise TopicError(f"Topic {name} is missing; run interest-stream topics create.")
    return {name: found[name].partitions for name in names}


def delete(settings: Settings) -> None:
    """Delete the topics and the consumer group, with all they hold; for tests and the demo.

    Raises:
        BrokerError: no broker answers.
    """
    names = {topic.name for topic in _topics(settings)}
    names.add(f"{settings.app_id}-__assignor-__leader")  # made by Faust
    with admin_client(settings) as admin:
        existing = sorted(names.intersection(admin.list_topics()))
        if existing:
            admin.delete_topics(existing, raise_errors=False)
        admin.delete_groups([settings.app_id])


def _topics(settings: Settings) -> list[_Topic]:
    return [
        *(_Topic(name, "delete") for name in settings.input_topics),
        _Topic(settings.drift_topic, None),
        _Topic(settings.recommendations_topic, None),
        _Topic(settings.dead_letters_topic, "compact,delete"),
        _Topic(settings.changelog_topic, "compact"),
        _Topic(settings.journal_topic, "delete"),
        _Topic(settings.control_topic, "compact"),
    ]


def _configs(topic: _Topic, settings: Settings) -> dict[str, str]:
    policy = topic.policy or "delete"
    configs = {_POLICY: policy, _MIN_INSYNC: str(settings.min_insync)}
    if policy == "compact":
        configs[_SEGMENT_BYTES] = str(COMPACTED_SEGMENT_BYTES)
    return configs


def _describe(admin: Any, names: list[str]) -> dict[str, Layout]:
    """The topics among `names` that exist."""
    # Asking for all topics: asking for one by name could make it.
    existing = {topic["name"]: topic["partitions"] for topic in admin.describe_topics()}
    here = [name for name in names if existing.get(name)]
    if not here:
        return {}
    resources = [ConfigResource("TOPIC", name) for name in here]
    configs = admin.describe_configs(resources, config_filter="all").get("topic", {})
    return {
        name: Layout(
            partitions=len(existing[name]),
            replication=min(len(partition["replica_nodes"]) for partition in existing[name]),
            config={key: config["value"] for key, config in configs.get(name, {}).items()},
        )
        for name in here
    }


def _compare(topic: _Topic, found: Layout, settings: Settings) -> Iterator[Finding]:
    name = topic.name
    if found.partitions != settings.partitions:
        yield Finding(_unequal(name, found.partitions, settings))
    if found.replication < settings.replication:
        yield Finding(
            f"Topic {name} has {found.replication} replicas and {settings.replication} are wanted; "
            "add replicas, or set INTEREST_REPLICATION."
        )
    if topic.policy is not None:
        yield from _compare_policy(name, topic.policy, found.config.get(_POLICY))
    min_insync = found.config.get(_MIN_INSYNC)
    if min_insync is None:
        yield _unknown(name, _MIN_INSYNC)
    elif int(min_insync) < settings.min_insync:
        yield Finding(
            f"Topic {name} has {_MIN_INSYNC}={min_insync} and {settings.min_insync} is wanted; "
            "change the topic, or set INTEREST_MIN_INSYNC."
        )
    elif int(min_insync) > found.replication:
        yield Finding(
            f"Topic {name} has {_MIN_INSYNC}={min_insync} and only {found.replication} replicas, "
            "so that no write succeeds; change the topic."
        )


def _compare_policy(name: str, wanted: Policy, found: str | None) -> Iterator[Finding]:
    if found is None:
        yield _unknown(name, _POLICY)
        return
    policies = {policy.strip() for policy in found.split(",")}
    if wanted == "compact" and policies != {"compact"}:
        yield Finding(
            f"Topic {name} has {_POLICY}={found} and would lose rows; set it to compact alone."
        )
    if wanted == "delete" and "compact" in policies:
        yield Finding(
            f"Topic {name} has {_POLICY}={found} and would lose records of a user; set it to "
            "delete."
        )
    if wanted == "compact,delete" and policies != {"compact", "delete"}:
        fault = "never lets go of old letters" if "compact" in policies else "keeps erased letters"
        yield Finding(f"Topic {name} has {_POLICY}={found} and {fault}; set it to compact,delete.")


def _missing_adapter(name: str) -> str:
    return (
        f"Topic {name} of INTEREST_ADAPTER_TOPICS is missing; make it, or take it out of the "
        "setting."
    )


def _unknown(name: str, key: str) -> Finding:
    sentence = (
        f"{key} of topic {name} could not be checked, because the broker does not report it; look "
        "at it by hand."
    )
    return Finding(sentence, is_certain=False)


def _unequal(name: str, partitions: int, settings: Settings) -> str:
    return (
        f"Topic {name} has {partitions} partitions and {settings.partitions} are wanted, the same "
        "for all topics; make the topic anew, or set INTEREST_PARTITIONS."
    )
