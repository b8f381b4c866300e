"""What the step of mixed topics replaces or calls of kafka-python is still there.

When one moves, read the new code before changing this list: stream_app/repartition/group.py and
sending.py say what each is for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.producer.sender import Sender


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (ConsumerCoordinator._send_heartbeat_request, []),
        (Sender._create_produce_requests, ["collated"]),
        (Sender._failed_produce, ["batches", "node_id", "error"]),
    ],
)
def test_a_function_has_its_parameters(function: Callable[..., Any], parameters: list[str]) -> None:
    assert [*inspect.signature(function).parameters][1:] == parameters


@pytest.mark.parametrize(
    ("caller", "line"),
    [
        (KafkaConsumer.__init__, "self._coordinator = ConsumerCoordinator("),
        (KafkaProducer.__init__, "self._sender = Sender("),
        (ConsumerCoordinator._do_heartbeat, "await self._send_heartbeat_request()"),
        # What comes back is all that leaves.
        (Sender._send_producer_data, "requests = self._create_produce_requests(batches_by_node)"),
        (Sender._send_producer_data, "for node_id, request in requests.items():"),
    ],
)
def test_it_is_called_where_the_step_expects_it(caller: Callable[..., Any], line: str) -> None:
    assert line in inspect.getsource(caller)
