"""Mixed topics of all vendors: what is written to them, and what has to come of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from stream_app import topics
from stream_app.adapters.adapt import VENDORS, Adapted, adapt
from stream_app.admin import admin_client
from stream_app.events import Source
from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from stream_app.repartition.group import group_of
from stream_app.repartition.mapping import Mapper, Report
from stream_app.repartition.places import LETTER, Place, Seen, read_place
from stream_app.settings import Settings
from tests.unit.adapters.examples import (
    action,
    described,
    ga4_item,
    ga4_row,
    retail_event,
    segment_call,
    snowplow_line,
)
from tests.workers import committed_events

PARTITIONS = 3
"""Of each mixed topic."""
USERS = 11
"""Of each vendor."""
PRODUCED_MS = 1_772_360_105_000


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def ga4(number: int, user: str) -> bytes:
    """A body of three events, one of them of no use, or a row of an export."""
    time = 1_772_360_000_000_000 + number * 1_000_000
    if number % 5 == 0:
        events = [
            {"name": "view_item", "params": {"items": [{"item_id": f"item-{number % 40}"}]}},
            {"name": "page_view", "params": {"n": number}},
            {"name": "search", "params": {"search_term": f"term {number % 7}"}},
        ]
        body = {"client_id": user, "timestamp_micros": time, "events": events}
        return _json(body)
    items = [ga4_item(f"item-{(number + n) % 40}", f"category-{number % 6}") for n in range(2)]
    name = ("add_to_cart", "select_item", "purchase", "page_view")[number % 4]
    return _json(ga4_row(name, user_id=user, event_timestamp=time, items=items))


def segment(number: int, user: str) -> bytes:
    """A call of one of four names; the last is none of ours."""
    product = {"product_id": f"item-{number % 40}", "category": f"category-{number % 6}"}
    name, properties = (
        ("Product Viewed", product),
        ("Products Searched", {"query": f"term {number % 7}"}),
        ("Order Completed", {"order_id": f"o-{number}", "products": [product]}),
        ("Coupon Entered", {}),
    )[number % 4]
    return _json(segment_call(name, properties, userId=user, messageId=f"segment-{number}"))


def retail(number: int, user: str) -> bytes:
    """An event of one of three names; the last is none of ours."""
    details = [{"product": {"id": f"item-{number % 40}"}, "quantity": 1}]
    name = ("detail-page-view", "purchase-complete", "home-page-view")[number % 3]
    more = {"userInfo": {"userId": user}, "sessionId": f"s-{number}"}
    return _json(retail_event(name, productDetails=details, **more))


def snowplow(number: int, user: str) -> bytes:
    """A line of two products, or a broken one."""
    product = described(
        "product", {"id": f"item-{number % 40}", "category": f"category-{number % 6}"}
    )
    if number % 4 == 3:
        return b"broken\tline"
    name = ("product_view", "add_to_cart", "transaction")[number % 4]
    return snowplow_line(action(name), [product, product], f12=user, f6=f"snowplow-{number}")


MADE: dict[str, Callable[[int, str], bytes]] = {
    "ga4": ga4,
    "segment": segment,
    "retail": retail,
    "snowplow": snowplow,
}


def adapter_topics(settings: Settings) -> str:
    """INTEREST_ADAPTER_TOPICS for topics that nobody else has, one of each vendor."""
    return ",".join(f"{settings.app_id}.{vendor}={vendor}" for vendor in MADE)


class Mixed:
    """Mixed topics, what was written to them, and what has to come of it.

    Args:
        settings: name the mixed topics, which are made.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        with admin_client(settings) as admin:
            config = {"num_partitions": PARTITIONS, "replication_factor": 1}
            admin.create_topics(dict.fromkeys(settings.adapters, config))
            admin.wait_for_topics(list(settings.adapters))
        self.epochs = topics.adapter_epochs(settings)
        self.records: dict[tuple[str, int], list[tuple[int, Adapted]]] = {}
        self.count = 0
        self._producer = KafkaProducer(**settings.kafka_python(), linger_ms=5)
        self._admin = KafkaAdminClient(**settings.kafka_python())

    def close(self) -> None:
        """Delete the topics and the group."""
        self._producer.close()
        self._admin.close()
        with admin_client(self.settings) as admin:
            admin.delete_topics(list(self.settings.adapters), raise_errors=False)
            admin.delete_groups([group_of(self.settings)])

    def send(self, records: int) -> None:
        """As many records of each vendor, with keys that say nothing of the user."""
        for topic, vendor in self.settings.adapters.items():
            futures = []
            for number in range(self.count, self.count + records):
                value = MADE[vendor](number, f"{vendor}-user-{number % USERS}")
                key = None if number % 3 else b"session-%d" % (number % 5)
                place, produced_ms = number % PARTITIONS, PRODUCED_MS + number
                future = self._producer.send(
                    topic, value, key, partition=place, timestamp_ms=produced_ms
                )
                made = adapt(
                    VENDORS[vendor],
                    value,
                    produced_ms,
                    partitions=self.settings.partitions,
                    future_allowance_ms=self.settings.future_allowance_ms,
                    max_value_bytes=self.settings.max_event_bytes,
                )
                futures.append((place, made, future))
            for place, made, future in futures:
                row = future.get(60).offset, made
                self.records.setdefault((topic, place), []).append(row)
        self.count += records

    def break_off(self, records: int) -> int:
        """Leave what a batch that broke off leaves; how many records that are.

        Of the first records of each partition, what belongs to every other partition stands there.
        """
        letters = topics.partition_count(self.settings, self.settings.dead_letters_topic)
        mapper = Mapper(self.settings, self.epochs, letters)
        sent = 0
        for where in self.records:
            first = read_records(self.settings, *where)[:records]
            for one in mapper.map(where, first, Seen({}), Report()):
                topic, partition = one.where
                if partition % 2 == 0:
                    self._producer.send(
                        topic, one.value, one.key, headers=one.headers, partition=partition
                    )
                    sent += 1
        self._producer.flush(60)
        return sent

    def events(self) -> dict[Place, Any]:
        """The events that have to come, by their places."""
        return {
            Place(where, self.epochs[where[0]], offset, number): one
            for where, rows in self.records.items()
            for offset, made in rows
            for number, one in enumerate(made.events)
        }

    def letters(self) -> dict[Source, str]:
        """The dead letters that have to come, and their reasons."""
        return {
            Source(*where, offset): str(made.refused.reason)
            for where, rows in self.records.items()
            for offset, made in rows
            if made.refused is not None
        }

    def committed(self) -> dict[tuple[str, int], int]:
        """The committed offset of each mixed partition that has one."""
        group = group_of(self.settings)
        found = self._admin.list_group_offsets(group).get(group, {})
        places = {where: found.get(TopicPartition(*where)) for where in self.records}
        return {where: at.offset for where, at in places.items() if at is not None}

    def is_mapped(self) -> bool:
        """Whether the group has committed all of it."""
        ends = {where: rows[-1][0] + 1 for where, rows in self.records.items()}
        return self.committed() == ends

    def is_done(self) -> bool:
        """Whether all is mapped and applied."""
        return self.is_mapped() and committed_events(self.settings) >= len(self.events())

    def broken(self) -> list[str]:
        """What does not hold, a sentence each, when all is mapped.

        Every event and every letter stands where it has to, once, as it was mapped, and the events
        of a user from one mixed partition stand in each input topic in the order of their source.
        """
        settings, expected = self.settings, self.events()
        broken: list[str] = []
        found: Counter[Place] = Counter()
        last: dict[tuple[Any, ...], int] = {}
        for topic in settings.input_topics:
            for partition in range(settings.partitions):
                for record in read_records(settings, topic, partition):
                    place = read_place(record.headers)
                    one = expected.get(place) if place is not None else None
                    if place is None or one is None:
                        broken.append(f"{topic} has a record from nowhere at {record.offset}")
                        continue
                    found[place] += 1
                    stands = topic, partition, record.key, record.value
                    wanted = partition_for(one.key, settings.partitions)
                    if stands != (
                        settings.input_topics[one.event_type],
                        wanted,
                        one.key,
                        one.value,
                    ):
                        broken.append(f"{place} is not where and what it has to be")
                    way = topic, record.key, place.where
                    if last.get(way, -1) > place.offset:
                        broken.append(f"{place} comes before an earlier one of its user")
                    last[way] = place.offset
        letters: Counter[Source] = Counter()
        for partition in range(settings.partitions):
            for record in read_records(settings, settings.dead_letters_topic, partition):
                place = read_place(record.headers)
                if place is None or place.number != LETTER:
                    broken.append(f"a dead letter from nowhere stands at {record.offset}")
                    continue
                letters[Source(*place.where, place.offset)] += 1
        for what, have, want in (
            ("events", found, Counter(list(expected))),
            ("dead letters", letters, Counter(list(self.letters()))),
        ):
            lost, doubled = want - have, have - want  # type: ignore[operator]
            if lost or doubled:
                first = next(iter(lost or doubled))
                broken.append(
                    f"{lost.total()} {what} lost and {doubled.total()} doubled, one of them {first}"
                )
        return broken
