"""Erases a user: asks the lane, tombstones dead letters, checks, and says what is left where."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from msgspec import Struct

from stream_app import topics
from stream_app.admin import admin_client, asking
from stream_app.control import Erase, Place, Receipt, decode_receipt, encode
from stream_app.dead_letters import Letter, place_of, user_of
from stream_app.errors import WorkerError
from stream_app.events import Source
from stream_app.lane.reading import plain_consumer, read_records
from stream_app.letter_topic import read_letter_topic
from stream_app.partitioner import partition_for
from stream_app.settings import Settings

SEND_TIMEOUT_S = 30.0
POLL_MS = 200


class Held(Struct, frozen=True, gc=False):
    """What a topic still holds of a user.

    records   records under the user's key, tombstones left out
    current   whether the last of them is no tombstone: it would be found again
    until     when the broker removes them
    """

    topic: str
    records: int
    current: bool
    until: str


class Erased(Struct, frozen=True, kw_only=True):
    """The outcome of an erasure: the lane's receipt, and what is left where.

    dead_letters   letters about the user that were deleted
    """

    receipt: Receipt
    requested_ms: int
    dead_letters: int
    held: list[Held]

    @property
    def is_gone(self) -> bool:
        """Whether no topic but the inputs has a current value of the user."""
        return not any(held.current for held in self.held)


def erase_user(
    settings: Settings,
    user: str,
    timeout_s: float,
    waiting: Callable[[float], object] = lambda seconds: None,
) -> Erased:
    """Have the lane erase a user, and look at what is left.

    Args:
        timeout_s: how long the receipt is waited for.
        waiting: told the seconds that have passed.

    Raises:
        BrokerError: no broker takes the request.
        TopicError: the topics have another number of partitions than the settings.
        WorkerError: no worker answered; the request stays, and is carried out when one runs.
    """
    topics.check_counts(settings)
    request = Erase(request_id=uuid.uuid4().hex, user_id=user, requested_ms=int(time.time() * 1000))
    place = _send(settings, request)
    receipt = _receipt(settings, request, place, timeout_s, waiting)
    return Erased(
        receipt=receipt,
        requested_ms=request.requested_ms,
        dead_letters=erase_letters(settings, user),
        held=held(settings, user),
    )


def erase_letters(settings: Settings, user: str) -> int:
    """Delete the dead letters about a user, where that could be read; how many there were.

    Raises:
        BrokerError, RecoveryError, TopicError: the topic cannot be read or written.
    """
    letters = _letters(settings, user)
    if not letters:
        return 0
    topic = settings.dead_letters_topic
    count = topics.partition_count(settings, topic)
    with asking(settings):
        producer = KafkaProducer(**settings.kafka_python(), acks="all")
        try:
            for source in letters:
                key, place = place_of(source).encode(), source.partition % count
                producer.send(topic, None, key, partition=place).get(SEND_TIMEOUT_S)
        finally:
            producer.close(SEND_TIMEOUT_S)
    return len(letters)


def _letters(settings: Settings, user: str) -> list[Source]:
    def is_about(letter: Letter) -> bool:
        return letter.key == user.encode() or user_of(letter) == user

    return list(read_letter_topic(settings, is_about).letters)


def held(settings: Settings, user: str) -> list[Held]:
    """What each topic still holds under the user's key.

    Raises:
        BrokerError, RecoveryError: the topics cannot be read.
    """
    partition = partition_for(user.encode(), settings.partitions)
    names = (
        settings.changelog_topic,
        settings.drift_topic,
        settings.recommendations_topic,
        settings.control_topic,
        *settings.input_topics,
    )
    until = _until(settings, (*names, settings.dead_letters_topic))
    found = []
    for topic in names:
        records = [
            record
            for record in read_records(settings, topic, partition)
            if record.key == user.encode()
        ]
        values = [record for record in records if record.value is not None]
        is_input = topic in settings.input_topics
        current = bool(records) and records[-1].value is not None and not is_input
        found.append(Held(topic, len(values), current, until[topic] if values else ""))
    left = len(_letters(settings, user))
    until_letters = until[settings.dead_letters_topic] if left else ""
    found.append(Held(settings.dead_letters_topic, left, left > 0, until_letters))
    return found


def _send(settings: Settings, request: Erase) -> Place:
    topic = settings.control_topic
    partition = partition_for(request.user_id.encode(), settings.partitions)
    with asking(settings):
        producer = KafkaProducer(**settings.kafka_python(), acks="all")
        try:
            future = producer.send(
                topic, encode(request), request.user_id.encode(), partition=partition
            )
            return Place(topic, partition, future.get(SEND_TIMEOUT_S).offset)
        finally:
            producer.close(SEND_TIMEOUT_S)


def _receipt(
    settings: Settings,
    request: Erase,
    place: Place,
    timeout_s: float,
    waiting: Callable[[float], object],
) -> Receipt:
    began = time.monotonic()
    with asking(settings):
        consumer = plain_consumer(settings)
        try:
            tp = TopicPartition(place.topic, place.partition)
            consumer.assign([tp])
            consumer.seek(tp, place.offset)
            while time.monotonic() - began < timeout_s:
                for record in consumer.poll(timeout_ms=POLL_MS).get(tp, []):
                    receipt = decode_receipt(record.headers)
                    if receipt is not None and receipt.request_id == request.request_id:
                        return receipt
                waiting(time.monotonic() - began)
        finally:
            consumer.close()
    raise WorkerError(
        f"No worker has answered within {timeout_s:g} s; the request stands in "
        f"{place.topic} and is carried out when one runs: start a worker, and ask for the erasure "
        "again to see the receipt."
    )


def _until(settings: Settings, names: tuple[str, ...]) -> dict[str, str]:
    """Per topic, in words, when the broker removes what was replaced or is old."""
    with admin_client(settings) as admin:
        resources = [ConfigResource("TOPIC", name) for name in names]
        found = admin.describe_configs(resources, config_filter="all").get("topic", {})
    return {name: _in_words(found.get(name, {})) for name in names}


def _in_words(entries: dict[str, Any]) -> str:
    config = {name: entry["value"] for name, entry in entries.items()}
    policy = config.get("cleanup.policy")
    if policy is None:
        return "the broker does not tell"
    words = []
    if "compact" in policy:
        words.append("the log cleaner has compacted it")
    if "delete" in policy:
        retention_ms = config.get("retention.ms")
        if retention_ms is None:
            words.append("its retention has passed, which the broker does not tell")
        elif int(retention_ms) < 0:
            words.append("never: the topic has no retention time")
        else:
            words.append(f"{int(retention_ms) / 86_400_000:g} days have passed since each record")
    return "until " + ", or ".join(words)
