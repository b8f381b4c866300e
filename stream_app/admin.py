"""Asks brokers what only an admin client can; what they do not do is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from stream_app.broker import wait_until_ready
from stream_app.errors import BrokerError
from stream_app.settings import Settings

BROKER_TIMEOUT_S = 10.0


@contextmanager
def asking(settings: Settings) -> Iterator[None]:
    """Within, requests go to a broker that answers; a refused one is a `BrokerError`.

    Raises:
        BrokerError: no broker answers, or it does not do what is asked.
    """
    wait_until_ready(settings.kafka_python(), BROKER_TIMEOUT_S)
    try:
        yield
    except KafkaError as error:
        raise BrokerError(
            f"The broker at {settings.kafka_bootstrap} does not do what is asked "
            f"({type(error).__name__}); check that it runs, its log, and INTEREST_KAFKA_BOOTSTRAP."
        ) from error


@contextmanager
def admin_client(settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client that is closed afterwards; see `asking`."""
    with asking(settings):
        client = KafkaAdminClient(**settings.kafka_python())
        try:
            yield client
        finally:
            client.close()
