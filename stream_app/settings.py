"""All settings: environment variables with the prefix `INTEREST_`, checked once at the start."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream_app.errors import SettingsError, UsageError
from stream_app.security import (
    Mechanism,
    Protocol,
    Security,
    faust_credentials,
    kafka_python_security,
)
from stream_app.times import parse_duration

if TYPE_CHECKING:
    from faust.types.auth import CredentialsT

PREFIX = "INTEREST_"

_T = TypeVar("_T")

OutputFormat = Literal["plain", "cloudevents-binary", "cloudevents-structured"]
"""How drift events and recommendations leave, see output_format.py."""
TOPIC_NAME = r"^[A-Za-z0-9._-]{1,200}$"
HTTP_TOKEN = re.compile(r"[!-~]{16,}")
"""What a header can carry, and too long to be guessed."""
VENDOR_NAMES = ("ga4", "segment", "retail", "snowplow")
"""Whose events an adapter topic may hold, see stream_app/adapters."""
_SERVER = re.compile(r"^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>[0-9]{1,5})$")


def _check_servers(value: str) -> str:
    servers = [server.strip() for server in value.split(",") if server.strip()]
    for server in servers:
        if "@" in server:
            raise ValueError("a user and a password have variables of their own")
        match = _SERVER.match(server)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ValueError(f"{server!r} is not host:port")
    if not servers:
        raise ValueError("no host:port is given")
    return ",".join(servers)


def _not_dots(value: str) -> str:
    if value in (".", ".."):
        raise ValueError("Kafka takes no topic of this name")
    return value


def _check_duration(value: str) -> str:
    try:
        seconds = parse_duration(value)
    except UsageError as error:
        raise ValueError(str(error).rstrip(".")) from None
    if seconds >= 2**32:
        raise ValueError("it lasts longer than 136 years")
    return value


def _check_adapters(value: str) -> str:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    for part in parts:
        topic, _, vendor = part.partition("=")
        if re.fullmatch(TOPIC_NAME, topic) is None or topic in (".", ".."):
            raise ValueError(f"{part!r} is not TOPIC=VENDOR")
        if vendor not in VENDOR_NAMES:
            raise ValueError(f"{part!r} names none of {', '.join(VENDOR_NAMES)}")
    seen = [part.partition("=")[0] for part in parts]
    if len(set(seen)) < len(seen):
        raise ValueError("a topic is named twice")
    return ",".join(parts)


WORKER_URL = r"https?://[^\s/?#@]+/?"
"""A worker's address: scheme, host and port."""


def _check_url(value: str) -> str:
    if re.fullmatch(WORKER_URL, value) is None:
        raise ValueError("it is no URL like http://worker-1:6066")
    return value.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_check_url)]
Duration = Annotated[str, AfterValidator(_check_duration)]
Adapters = Annotated[str, AfterValidator(_check_adapters)]
Servers = Annotated[str, AfterValidator(_check_servers)]
Topic = Annotated[str, Field(pattern=TOPIC_NAME), AfterValidator(_not_dots)]


class Settings(BaseSettings):
    """Settings of one worker and of the commands beside it.

    A keyword of the constructor goes before the environment variable `INTEREST_<NAME>`, and that
    before the default. Units are in the names: `_ms`, `_s` (seconds), `_bytes`, `_mb` (MiB).

    Raises:
        SettingsError: a value is wrong; one sentence that names the variable.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    # Broker
    kafka_bootstrap: Servers = "127.0.0.1:9092"
    kafka_security_protocol: Protocol = "PLAINTEXT"
    kafka_sasl_mechanism: Mechanism | None = None
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    kafka_password_file: Path | None = None
    kafka_oauth_token: SecretStr | None = None
    kafka_oauth_token_file: Path | None = None
    kafka_ca_file: Path | None = None
    kafka_cert_file: Path | None = None
    kafka_key_file: Path | None = None
    kafka_key_password: SecretStr | None = None
    kafka_key_password_file: Path | None = None
    kafka_check_hostname: bool = True

    # Topics
    clicks_topic: Topic = "interest.clicks.v1"
    searches_topic: Topic = "interest.searches.v1"
    purchases_topic: Topic = "interest.purchases.v1"
    drift_topic: Topic = "interest.drift.v1"
    recommendations_topic: Topic = "interest.recommendations.v1"
    dead_letters_topic: Topic = "interest.dead-letters.v1"
    adapter_topics: Adapters | None = None
    partitions: int = Field(default=8, ge=1, le=10_000)
    replication: int = Field(default=1, ge=1, le=32)
    min_insync: int = Field(default=1, ge=1, le=32)

    # Events
    future_allowance_ms: int = Field(default=24 * 3_600_000, ge=0)
    max_event_bytes: int = Field(default=1_000_000, ge=1_000)
    dead_letter_max_bytes: int = Field(default=900_000, ge=1_000)

    # Outputs
    output_format: OutputFormat = "plain"

    # Worker
    app_id: str = Field(default="interest-stream", pattern=r"^[A-Za-z0-9._-]{1,150}$")
    data_dir: Path = Path("interest-stream-data")
    checkpoint: Path | None = None
    http_host: str = Field(default="127.0.0.1", min_length=1)
    http_port: int = Field(default=6066, ge=0, le=65535)
    http_url: HttpUrl | None = None
    http_token: SecretStr | None = None
    http_token_file: Path | None = None
    merge_wait_ms: int = Field(default=200, ge=0, le=60_000)
    max_batch_events: int = Field(default=4000, ge=1, le=1_000_000)
    recommend_every: int = Field(default=5, ge=1)
    top_k: int = Field(default=10, ge=1, le=1000)
    session_timeout_s: float = Field(default=10.0, ge=1.0, le=3600.0)
    rebalance_timeout_s: float = Field(default=10.0, ge=1.0, le=3600.0)
    heartbeat_s: float = Field(default=1.0, gt=0.0, le=1200.0)
    state_ttl: Duration | None = None
    standby_replicas: int = Field(default=0, ge=0, le=16)
    commit_interval_s: float = Field(default=1.0, gt=0.0, le=3600.0)
    shutdown_timeout_s: float = Field(default=8.0, gt=0.0, le=3600.0)
    rocksdb_cache_mb: int = Field(default=64, ge=1)
    log_level: Literal["debug", "info", "warn", "error", "critical"] = "info"

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from None

    @field_validator("kafka_security_protocol", "kafka_sasl_mechanism", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _faust_level(cls, value: Any) -> Any:
        # Faust knows `warn` and refuses `warning`.
        lower = value.lower() if isinstance(value, str) else value
        return "warn" if lower == "warning" else lower

    @field_validator(
        "kafka_sasl_mechanism",
        "kafka_username",
        "kafka_password",
        "kafka_password_file",
        "kafka_oauth_token",
        "kafka_oauth_token_file",
        "kafka_ca_file",
        "kafka_cert_file",
        "kafka_key_file",
        "kafka_key_password",
        "kafka_key_password_file",
        "http_url",
        "http_token",
        "http_token_file",
        "checkpoint",
        "state_ttl",
        "adapter_topics",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        # Compose and Kubernetes files pass `VARIABLE=` for a value that is not given.
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator(
        "kafka_password_file",
        "kafka_oauth_token_file",
        "kafka_ca_file",
        "kafka_cert_file",
        "kafka_key_file",
        "kafka_key_password_file",
        "http_token_file",
    )
    @classmethod
    def _is_readable(cls, value: Path | None) -> Path | None:
        if value is not None and not (value.is_file() and os.access(value, os.R_OK)):
            raise ValueError("no such file, or it cannot be read")
        return value

    def model_post_init(self, _context: Any) -> None:
        """Check what only several settings together can get wrong."""
        self._check_topics()
        self._check_security()
        if self.heartbeat_s * 3 > self.session_timeout_s:
            raise SettingsError(
                f"{PREFIX}HEARTBEAT_S is {self.heartbeat_s:g}, which is more than a third of "
                f"{PREFIX}SESSION_TIMEOUT_S ({self.session_timeout_s:g}); make it smaller."
            )

    def _check_topics(self) -> None:
        if self.min_insync > self.replication:
            raise SettingsError(
                f"{PREFIX}MIN_INSYNC is {self.min_insync}, which is more than "
                f"{PREFIX}REPLICATION ({self.replication}), so that no write could succeed; "
                "make it smaller."
            )
        seen: dict[str, str] = {}
        for name in _TOPIC_FIELDS:
            topic = getattr(self, name)
            if topic in seen:
                raise SettingsError(
                    f"{PREFIX}{name.upper()} and {PREFIX}{seen[topic].upper()} both name the topic "
                    f"{topic!r}; give each its own."
                )
            seen[topic] = name
        own = {self.changelog_topic, self.journal_topic, self.control_topic}
        for topic in self.adapters:
            if topic in seen or topic in own:
                raise SettingsError(
                    f"{PREFIX}ADAPTER_TOPICS names {topic!r}, another topic of the worker; "
                    "give mixed events a topic of their own."
                )

    def _check_security(self) -> None:
        if self.kafka_cert_file is not None and self.kafka_key_file is None:
            raise SettingsError(
                f"{PREFIX}KAFKA_CERT_FILE is set without {PREFIX}KAFKA_KEY_FILE; set both."
            )
        for name in SECRETS:
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                raise SettingsError(
                    f"{PREFIX}{name.upper()} and {PREFIX}{name.upper()}_FILE are both set; "
                    "unset one of them."
                )
        if not self.kafka_security_protocol.startswith("SASL"):
            return
        if self.kafka_sasl_mechanism is None:
            raise SettingsError(
                f"{PREFIX}KAFKA_SECURITY_PROTOCOL is {self.kafka_security_protocol} without "
                f"{PREFIX}KAFKA_SASL_MECHANISM; set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or "
                "OAUTHBEARER."
            )
        if self.kafka_sasl_mechanism == "OAUTHBEARER":
            if self.kafka_oauth_token is None and self.kafka_oauth_token_file is None:
                raise SettingsError(
                    f"{PREFIX}KAFKA_SASL_MECHANISM is OAUTHBEARER without a token; set "
                    f"{PREFIX}KAFKA_OAUTH_TOKEN or {PREFIX}KAFKA_OAUTH_TOKEN_FILE."
                )
        elif self.kafka_username is None or (
            self.kafka_password is None and self.kafka_password_file is None
        ):
            raise SettingsError(
                f"{PREFIX}KAFKA_SASL_MECHANISM is {self.kafka_sasl_mechanism} without a user; set "
                f"{PREFIX}KAFKA_USERNAME and {PREFIX}KAFKA_PASSWORD (or _PASSWORD_FILE)."
            )

    @property
    def input_topics(self) -> tuple[str, str, str]:
        """The three input topics, in the order of `model.events.EventType`."""
        return (self.clicks_topic, self.searches_topic, self.purchases_topic)

    @property
    def adapters(self) -> dict[str, str]:
        """Topics of mixed events, and whose events each holds."""
        parts = (self.adapter_topics or "").split(",")
        named = (part.partition("=") for part in parts if part)
        return {topic: vendor for topic, _, vendor in named}

    @property
    def changelog_topic(self) -> str:
        """The changelog of the rows; Faust makes this name from the app id and the table."""
        return f"{self.app_id}-user_state-changelog"

    @property
    def journal_topic(self) -> str:
        """The journal of the batches' end offsets."""
        return f"{self.app_id}-journal"

    @property
    def control_topic(self) -> str:
        """The topic of requests to the lane, such as the erasure of a user."""
        return f"{self.app_id}-control"

    @property
    def state_ttl_s(self) -> int | None:
        """Seconds without an event after which a row expires, None for never."""
        return None if self.state_ttl is None else parse_duration(self.state_ttl)

    def security(self) -> Security:
        """What a connection to the brokers needs; reads the secret files.

        Raises:
            SettingsError: a certificate or a secret file cannot be read.
        """
        protocol = self.kafka_security_protocol
        sasl = self.kafka_sasl_mechanism if protocol.startswith("SASL") else None
        context = self._ssl_context() if protocol.endswith("SSL") else None
        if sasl == "OAUTHBEARER":
            return Security(protocol, sasl, token=self._oauth_token, ssl_context=context)
        if sasl is not None:
            password = self._secret("kafka_password")
            return Security(protocol, sasl, self.kafka_username, password, ssl_context=context)
        return Security(protocol, ssl_context=context)

    def kafka_python(self) -> dict[str, Any]:
        """Keyword arguments (servers and security) that every kafka-python client takes.

        Raises:
            SettingsError: a certificate or a secret file cannot be read.
        """
        servers = self.kafka_bootstrap.split(",")
        return {"bootstrap_servers": servers, **kafka_python_security(self.security())}

    def faust_broker_url(self) -> str:
        """The `broker` of a `faust.App`: one `kafka://` URL a server, joined by semicolons."""
        return ";".join(f"kafka://{server}" for server in self.kafka_bootstrap.split(","))

    def faust_credentials(self) -> CredentialsT | None:
        """The `broker_credentials` of a `faust.App`; None without security.

        Raises:
            SettingsError: a certificate or a secret file cannot be read.
        """
        if self.kafka_security_protocol == "PLAINTEXT":
            return None
        return faust_credentials(self.security())

    def http_access(self) -> str | None:
        """The token that user data over HTTP asks for; None when there is none, on loopback.

        Raises:
            SettingsError: the HTTP server is to listen off loopback without a token, the token is
                too short, or its file cannot be read.
        """
        token = self._secret("http_token")
        if token is None:
            if not is_loopback(self.http_host):
                raise SettingsError(
                    f"{PREFIX}HTTP_HOST is {self.http_host}, which others can reach, without a "
                    f"token; set {PREFIX}HTTP_TOKEN_FILE to a file that holds one, or unset "
                    f"{PREFIX}HTTP_HOST."
                )
            return None
        if HTTP_TOKEN.fullmatch(token) is None:
            raise SettingsError(
                f"{PREFIX}HTTP_TOKEN (or the file that {PREFIX}HTTP_TOKEN_FILE names) is no token; "
                "give at least 16 ASCII characters without spaces, as `openssl rand -hex 32` does."
            )
        return token

    def _oauth_token(self) -> str:
        token = self._secret("kafka_oauth_token")
        assert token is not None  # _check_security
        return token

    def _secret(self, name: str) -> str | None:
        secret: SecretStr | None = getattr(self, name)
        if secret is not None:
            return secret.get_secret_value()
        path: Path | None = getattr(self, f"{name}_file")
        if path is None:
            return None
        try:
            return path.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            # The message of a UnicodeDecodeError has a byte of the secret.
            cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise SettingsError(
                f"{_variable(name)}_FILE names {str(path)!r}, which cannot be read ({cause}); "
                "name a readable text file."
            ) from None

    def _ssl_context(self) -> ssl.SSLContext:
        context = self._load(
            "kafka_ca_file", lambda: ssl.create_default_context(cafile=self.kafka_ca_file)
        )
        context.check_hostname = self.kafka_check_hostname
        cert, key = self.kafka_cert_file, self.kafka_key_file
        if cert is not None:
            # An empty password keeps OpenSSL from asking on the terminal.
            password = self._secret("kafka_key_password") or ""
            self._load("kafka_cert_file", lambda: context.load_cert_chain(cert, key, password))
        return context

    def _load(self, name: str, load: Callable[[], _T]) -> _T:
        try:
            return load()
        except OSError as error:
            raise SettingsError(
                f"{_variable(name)} names {str(getattr(self, name))!r}, which cannot be used "
                f"({error}); name a PEM file that fits its key and password."
            ) from None


_TOPIC_FIELDS = tuple(name for name in Settings.model_fields if name.endswith("_topic"))
SECRETS = tuple(
    name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
)
"""Settings that are never shown; each has a twin that names a file, with `_file` behind."""


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sentence(error: ValidationError) -> str:
    """One sentence on the first wrong value, which is not shown where it may be a secret."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{name!r} is no setting; see the list of settings in deploy/README.md."
    # A secret may stand where its file, or a server, is to be named.
    given = str(first["input"])
    is_secret = name.removesuffix("_file") in SECRETS or "@" in given
    value = "" if is_secret else f"={given[:100]!r}"
    cause = first["msg"].removeprefix("Value error, ")
    default = "" if field.default is None else f" for the default ({field.default})"
    what = f"set another value, or unset it{default}"
    return f"{_variable(name)}{value} cannot be used: {cause}; {what}."
