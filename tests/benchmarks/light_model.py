"""The network alone, one event at a time: the least that a stock agent can do per event.

One LSTM step, a plain counter of categories, and for one event in five (the same rule as the
worker's) the best of the whole catalogue by ``torch.topk``. No drift test, no candidates, no
reasons but one, no repeats recognised, no time decay.
"""

from __future__ import annotations

import msgspec
import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.events import QUERY_TOKENS, EventType, Kind
from model.interest_lstm import StepInput
from model.state import row_dtype
from stream_app.events import (
    Click,
    Event,
    Interest,
    Recommendation,
    RecommendationReason,
    RecommendedItem,
    Search,
    Source,
    output_id,
)

_ACTIONS = {"view": int(Kind.VIEW), "favourite": int(Kind.FAVOURITE), "cart": int(Kind.CART)}
_CATEGORIES_KEPT = 64
_INTERESTS = 5
_REASON = RecommendationReason("sequence", "fits the order of the last steps")
_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode


class LightRow(msgspec.Struct, array_like=True, gc=False):
    """What is kept of a user; written with zeros up to the size of the product's row."""

    hidden: bytes
    last_time_ms: int
    events: int
    since_recommendation: int
    counts: dict[int, int]


_unpack = msgspec.msgpack.Decoder(LightRow).decode


class LightModel:
    """Moves one row by one event. ``step`` has the signature of ``stock_agent.Step``."""

    def __init__(self, checkpoint: Checkpoint, topics: tuple[str, str, str]) -> None:
        self._checkpoint = checkpoint
        self._topics = topics
        self._row_bytes = row_dtype(checkpoint.hidden).itemsize
        self._blank = np.zeros(2 * checkpoint.hidden, dtype=np.float16).tobytes()

    def step(
        self, event_type: EventType, event: Event, partition: int, offset: int, row: bytes | None
    ) -> tuple[bytes, list[bytes], list[bytes]]:
        """The new row, drift messages (never any), and recommendation messages."""
        state = LightRow(self._blank, 0, 0, 0, {})
        if row is not None:
            size = int.from_bytes(row[:2], "little")
            state = _unpack(row[2 : 2 + size])
        for item, category, kind, query in self._steps(event_type, event):
            out = self._forward(state, item, category, kind, query, event.timestamp_ms)
            if category:
                self._note(state.counts, category)
        state.events += 1
        state.since_recommendation += 1
        messages = []
        if (
            state.events == 1
            or event_type == EventType.PURCHASE
            or state.since_recommendation >= self._checkpoint.recommend_every
        ):
            state.since_recommendation = 0
            messages.append(self._recommend(state, out, event_type, event, partition, offset))
        packed = _pack(state)
        new = len(packed).to_bytes(2, "little") + packed
        return new.ljust(self._row_bytes, b"\0"), [], messages

    def _steps(
        self, event_type: EventType, event: Event
    ) -> list[tuple[int, int, int, list[int] | None]]:
        vocabulary = self._checkpoint.vocabulary
        if isinstance(event, Click):
            item, category = vocabulary.item(event.item_id), vocabulary.category(event.category)
            return [(item, category, _ACTIONS[event.action], None)]
        if isinstance(event, Search):
            tokens = vocabulary.query(event.query)
            return [(0, vocabulary.category(event.category), int(Kind.SEARCH), tokens)]
        return [
            (
                vocabulary.item(line.item_id),
                vocabulary.category(line.category),
                int(Kind.PURCHASE),
                None,
            )
            for line in event.items
        ]

    @torch.inference_mode()
    def _forward(
        self,
        state: LightRow,
        item: int,
        category: int,
        kind: int,
        query: list[int] | None,
        time_ms: int,
    ) -> torch.Tensor:
        """One step of the network; returns what the heads read, (1, H)."""
        network, hidden = self._checkpoint.network, self._checkpoint.hidden
        gap_s = (time_ms - state.last_time_ms) // 1000 if state.last_time_ms else 0
        tokens = (query or []) + [0] * (QUERY_TOKENS - len(query or []))
        numbers = torch.tensor([item, category, kind, max(gap_s, 0), time_ms // 1000, *tokens])
        x = StepInput(
            numbers[0:1], numbers[1:2], numbers[2:3], numbers[None, 5:], numbers[3:4], numbers[4:5]
        )
        both = torch.frombuffer(bytearray(state.hidden), dtype=torch.float16).float()[None]
        h, c = network.cell(network.encode(x), (both[:, :hidden], both[:, hidden:]))
        state.hidden = torch.cat((h, c), 1).half().numpy().tobytes()
        state.last_time_ms = max(state.last_time_ms, time_ms)
        return network.readout(h, x.item, x.category)

    @staticmethod
    def _note(counts: dict[int, int], category: int) -> None:
        if category not in counts and len(counts) >= _CATEGORIES_KEPT:
            del counts[min(counts, key=counts.__getitem__)]
        counts[category] = counts.get(category, 0) + 1

    @torch.inference_mode()
    def _recommend(
        self,
        state: LightRow,
        out: torch.Tensor,
        event_type: EventType,
        event: Event,
        partition: int,
        offset: int,
    ) -> bytes:
        checkpoint, network = self._checkpoint, self._checkpoint.network
        vocabulary = checkpoint.vocabulary
        scores = network.item_logits(out)[0, 1 : vocabulary.first_item_bucket]
        top = torch.topk(scores, checkpoint.top_k)
        logits = network.background_logits(out)[0]
        known = list(state.counts)
        logits[known] += torch.log1p(torch.tensor([float(n) for n in state.counts.values()]))
        liked = torch.topk(logits[1 : vocabulary.first_category_bucket], _INTERESTS)
        source = Source(self._topics[event_type], partition, offset)
        message = Recommendation(
            id=output_id("recommendation", source.topic, partition, offset),
            user_id=event.user_id,
            timestamp=event.timestamp_ms,
            source=source,
            trigger="interval",
            items=[
                RecommendedItem(vocabulary.item_names[i], round(score, 4), _REASON)
                for i, score in zip(top.indices.tolist(), top.values.tolist(), strict=True)
            ],
            interests=[
                Interest(vocabulary.category_names[i], round(p, 4), 0.0)
                for i, p in zip(
                    liked.indices.tolist(), liked.values.sigmoid().tolist(), strict=True
                )
            ],
            diversity=0.0,
            model_version=checkpoint.version,
        )
        return _encode(message)
