"""How to prove to the brokers who we are, for both Kafka clients that we use."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from faust.types.auth import CredentialsT

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


@dataclass(frozen=True)
class Security:
    """What a connection needs beyond the address.

    protocol     Kafka's security.protocol
    mechanism    SASL mechanism, None without SASL
    username     for every mechanism but OAUTHBEARER
    password     for every mechanism but OAUTHBEARER
    token        called for each new connection, so that a renewed token is found (OAUTHBEARER)
    ssl_context  for SSL and SASL_SSL
    """

    protocol: Protocol
    mechanism: Mechanism | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: Callable[[], str] | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None


def hide_credentials() -> None:
    """Keep passwords and tokens out of the log: at debug level aiokafka writes whole requests."""
    logging.getLogger("aiokafka.conn").setLevel(logging.INFO)


def kafka_python_security(security: Security) -> dict[str, Any]:
    """Keyword arguments of a kafka-python client."""
    kwargs: dict[str, Any] = {"security_protocol": security.protocol}
    if security.ssl_context is not None:
        kwargs["ssl_context"] = security.ssl_context
        kwargs["ssl_check_hostname"] = security.ssl_context.check_hostname
    if security.token is not None:
        kwargs["sasl_mechanism"] = "OAUTHBEARER"
        kwargs["sasl_oauth_token_provider"] = _kafka_python_tokens(security.token)
    elif security.mechanism is not None:
        kwargs["sasl_mechanism"] = security.mechanism
        kwargs["sasl_plain_username"] = security.username
        kwargs["sasl_plain_password"] = security.password
    return kwargs


def faust_credentials(security: Security) -> CredentialsT | None:
    """The `broker_credentials` of a `faust.App`; None for PLAINTEXT."""
    from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

    if security.token is not None:
        return OAuthCredentials(
            oauth_cb=_aiokafka_tokens(security.token), ssl_context=security.ssl_context
        )
    if security.mechanism is not None:
        return SASLCredentials(
            username=security.username,
            password=security.password,
            mechanism=security.mechanism,
            ssl_context=security.ssl_context,
        )
    if security.ssl_context is not None:
        return SSLCredentials(security.ssl_context)
    return None


def _kafka_python_tokens(token: Callable[[], str]) -> Any:
    from kafka.net.sasl.oauth import AbstractTokenProvider

    class Tokens(AbstractTokenProvider):  # type: ignore[misc, unused-ignore]
        def token(self) -> str:
            return token()

    return Tokens()


def _aiokafka_tokens(token: Callable[[], str]) -> Any:
    from aiokafka.abc import AbstractTokenProvider

    class Tokens(AbstractTokenProvider):  # type: ignore[misc, unused-ignore]
        async def token(self) -> str:
            return token()

    return Tokens()
