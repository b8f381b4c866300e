"""Messages of a transition: the JSON of their structs, with ids that follow from the source."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from model.checkpoint import LOOK_BACK, Checkpoint
from model.events import Source as OffsetSource
from model.state import new_rows
from model.transition import transition
from stream_app.events import Drift, Recommendation, encode_output, output_id
from stream_app.outputs import EncodedOutputs, encode, full_offset
from tests.checkpoints import named_checkpoint
from tests.event_batches import random_log

TOPICS = ("clicks", 'se"arches', "käufe")
EPOCHS = (0, 7, 0xABCDEF01)
USERS = 40


@pytest.fixture(scope="module", params=[(30, 3), (400, 90)])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    items, categories = request.param
    made = named_checkpoint(
        [f'Ding "{i}" – ü\n' for i in range(items)], [f"Art {c} \\ /" for c in range(categories)]
    )
    weights = replace(made.ranking, again=(100.0,) * LOOK_BACK)
    return replace(made, ranking=weights, drift=replace(made.drift, threshold=1.0))


@pytest.fixture(scope="module")
def users() -> list[str]:
    return [f'user "{u}" 名' for u in range(USERS)]


@pytest.fixture(scope="module")
def encoded(checkpoint: Checkpoint, users: list[str]) -> EncodedOutputs:
    log = random_log(9, 2500, USERS, checkpoint)
    _, out = transition(new_rows(USERS, 64), log, OffsetSource(partitions=8), checkpoint)
    return encode(out, log, users, str, 5, TOPICS, checkpoint, EPOCHS)


def test_recommendations_are_the_json_of_their_struct(
    encoded: EncodedOutputs, users: list[str]
) -> None:
    decoder = msgspec.json.Decoder(Recommendation)
    kinds = set()
    assert encoded.recommendations
    for key, value in encoded.recommendations:
        message = decoder.decode(value)
        assert encode_output(message) == value
        assert message.user_id.encode() == key
        assert message.user_id in users
        source = message.source
        epoch = EPOCHS[TOPICS.index(source.topic)]
        made = output_id("recommendation", source.topic, 5, source.offset, epoch)
        assert message.id == made
        assert source.topic in TOPICS
        assert len({item.item_id for item in message.items}) == len(message.items)
        kinds.update(item.reason.kind for item in message.items)
        for item in message.items:
            carried = item.reason.kind in ("repeated", "viewed_together")
            assert carried or item.reason.event is None
            if item.reason.kind == "repeated" and item.reason.event is not None:
                assert item.reason.event.item_id == item.item_id
        assert all(0 <= interest.probability <= 1 for interest in message.interests)
    assert {"repeated", "viewed_together"} <= kinds


def test_drift_events_name_their_evidence(encoded: EncodedOutputs) -> None:
    decoder = msgspec.json.Decoder(Drift)
    assert encoded.drift
    for key, value in encoded.drift:
        message = decoder.decode(value)
        assert encode_output(message) == value
        assert message.user_id.encode() == key
        source = message.source
        epoch = EPOCHS[TOPICS.index(source.topic)]
        assert message.id == output_id("drift", source.topic, 5, source.offset, epoch)
        assert message.statistic >= message.threshold
        assert message.since <= message.timestamp + 5000  # event times step back a little
        for event in message.evidence:
            assert event.topic in TOPICS
            assert event.partition == 5
            assert event.offset >= 0


def test_full_offsets_come_back_from_their_low_bits() -> None:
    for offset, latest in ((5, 9), (2**32 - 1, 2**32 + 3), (3 * 2**32 + 7, 3 * 2**32 + 7)):
        assert full_offset(offset & 0xFFFFFFFF, latest) == offset


def test_an_item_that_the_model_lacks_has_the_name_of_its_event(
    checkpoint: Checkpoint, users: list[str]
) -> None:
    log = random_log(3, 1500, USERS, checkpoint)
    bucket = checkpoint.vocabulary.first_item_bucket
    new = np.flatnonzero((log.item > 0) & (np.arange(len(log)) % 3 == 0))
    item = log.item.copy()
    item[new] = bucket + new % checkpoint.vocabulary.item_buckets
    log = replace(log, item=item)
    _, out = transition(new_rows(USERS, 64), log, OffsetSource(partitions=8), checkpoint)
    messages = encode(out, log, users, "item of step {}".format, 5, TOPICS, checkpoint, EPOCHS)
    decoder = msgspec.json.Decoder(Recommendation)
    named = 0
    for step, (_, value) in zip(out.recommend_step.tolist(), messages.recommendations, strict=True):
        message = decoder.decode(value)
        assert encode_output(message) == value
        found = {one.item_id for one in message.items if one.item_id.startswith("item of step")}
        assert found <= {f"item of step {step}"}
        assert not found or log.item[step] >= bucket
        named += len(found)
    assert named > 10
