"""Records of mixed topics to the records that they become, but for those that stand there already.

Nothing here waits for a broker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stream_app.adapters.adapt import VENDORS, Refused, adapt
from stream_app.dead_letters import dead_letter
from stream_app.log_tail import Where
from stream_app.repartition.places import LETTER, Place, Seen
from stream_app.repartition.sending import Out
from stream_app.settings import Settings


@dataclass
class Report:
    """What a round tells the worker.

    progress   per partition that is ours, its next offset and how many records wait
    letters    reasons of the dead letters that were written
    events     per topic, events that were mapped
    """

    progress: Mapping[Where, tuple[int, int]] = field(default_factory=dict)
    letters: list[str] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)


class Mapper:
    """Maps the records of a worker's mixed topics.

    Args:
        epochs: of each mixed topic, see `topics.adapter_epochs`.
        letter_partitions: of the topic of the dead letters.
    """

    def __init__(
        self, settings: Settings, epochs: Mapping[str, int], letter_partitions: int
    ) -> None:
        self._settings = settings
        self._vendors = {topic: VENDORS[name] for topic, name in settings.adapters.items()}
        self._epochs = epochs
        self._letter_partitions = letter_partitions

    def map(self, where: Where, records: Sequence[Any], seen: Seen, report: Report) -> list[Out]:
        """What the records of one partition become, in their order; noted in the report."""
        return [one for record in records for one in self._map(where, record, seen, report)]

    def _map(self, where: Where, record: Any, seen: Seen, report: Report) -> Iterator[Out]:
        settings, topic = self._settings, where[0]
        produced_ms = record.timestamp if record.timestamp is not None else -1
        adapted = adapt(
            self._vendors[topic],
            record.value,
            produced_ms,
            partitions=settings.partitions,
            future_allowance_ms=settings.future_allowance_ms,
            max_value_bytes=settings.max_event_bytes,
        )
        for number, one in enumerate(adapted.events):
            if (record.offset, number) not in seen:
                place = Place(where, self._epochs[topic], record.offset, number)
                to = settings.input_topics[one.event_type], one.partition
                timestamp_ms = produced_ms if produced_ms >= 0 else None
                yield Out(to, one.key, one.value, [place.header()], timestamp_ms)
                report.events[topic] = report.events.get(topic, 0) + 1
        if adapted.refused is not None and (record.offset, LETTER) not in seen:
            place = Place(where, self._epochs[topic], record.offset, LETTER)
            yield self._letter(place, record, adapted.refused)
            report.letters.append(str(adapted.refused.reason))

    def _letter(self, place: Place, record: Any, refused: Refused) -> Out:
        topic, partition = place.where
        letter = dead_letter(
            topic,
            partition,
            place.offset,
            record.key,
            record.value,
            refused.reason,
            refused.message,
            self._settings.dead_letter_max_bytes,
            user=refused.user,
        )
        to = self._settings.dead_letters_topic, partition % self._letter_partitions
        return Out(to, letter.key, letter.value, [*letter.headers, place.header()], None)
