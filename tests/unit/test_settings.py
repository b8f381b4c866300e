"""Settings come from the environment, and a wrong one is named."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import faust
import pytest
from kafka.net.sasl.oauth import AbstractTokenProvider

from stream_app.errors import SettingsError
from stream_app.settings import SECRETS, Settings

# A self-signed certificate for the name `localhost`; it protects nothing.
CA = """-----BEGIN CERTIFICATE-----
MIIBgDCCASWgAwIBAgIUZqSnrPBUZ3KieAZl2c3UaE5cyf4wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNDA5MDUyMFoYDzIxMjYxMDMx
MDkwNTIwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATENNuXciA9dmNdScXgFPgT+89AXPwIyvuwS2odtBdnpmClzH9fwfki
Linn97Lk6S0MtjzXAn3CbU+wQ8/ZMl8no1MwUTAdBgNVHQ4EFgQU6mysIxHiayvk
DfB8Lv0ZbkCbWlkwHwYDVR0jBBgwFoAU6mysIxHiayvkDfB8Lv0ZbkCbWlkwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAgnKhAlixddFsku5oE1T6
WXU1tprmLvR1crI+qY8wXOMCIQC7qjEeX8A/vE6KnDF3njXhPpV7LqUeqf6pXAZz
xLCGIA==
-----END CERTIFICATE-----
"""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("INTEREST_"):
            monkeypatch.delenv(name)


def test_defaults_fit_the_embedded_broker() -> None:
    settings = Settings()

    assert settings.kafka_python() == {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "security_protocol": "PLAINTEXT",
    }
    assert settings.faust_broker_url() == "kafka://127.0.0.1:9092"
    assert settings.faust_credentials() is None
    assert settings.http_host == "127.0.0.1"


def test_names_of_topics() -> None:
    settings = Settings(app_id="shop")

    assert settings.input_topics == (
        "interest.clicks.v1",
        "interest.searches.v1",
        "interest.purchases.v1",
    )
    app = faust.App("shop", broker="kafka://127.0.0.1:1", datadir="/nonexistent")
    assert settings.changelog_topic == app.Table("user_state").changelog_topic.get_topic_name()


def test_environment_goes_before_defaults_and_keywords_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INTEREST_PARTITIONS", "3")
    monkeypatch.setenv("INTEREST_TOP_K", "7")
    monkeypatch.setenv("INTEREST_LOG_LEVEL", "WARNING")

    settings = Settings(top_k=5)

    assert (settings.partitions, settings.top_k, settings.log_level) == (3, 5, "warn")


def test_several_servers() -> None:
    settings = Settings(kafka_bootstrap="a:9092, [::1]:9093,")

    assert settings.kafka_python()["bootstrap_servers"] == ["a:9092", "[::1]:9093"]
    assert settings.faust_broker_url() == "kafka://a:9092;kafka://[::1]:9093"
    faust.App("shop", broker=settings.faust_broker_url(), datadir="/nonexistent")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARTITIONS", "many"),
        ("PARTITIONS", "0"),
        ("KAFKA_BOOTSTRAP", "localhost"),
        ("KAFKA_BOOTSTRAP", "localhost:99999"),
        ("KAFKA_BOOTSTRAP", ","),
        ("KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("KAFKA_SASL_MECHANISM", "GSSAPI"),
        ("KAFKA_PASSWORD_FILE", "/nonexistent/file"),
        ("KAFKA_CA_FILE", "/nonexistent/file"),
        ("HTTP_PORT", "70000"),
        ("LOG_LEVEL", "loud"),
        ("COMMIT_INTERVAL_S", "nan"),
        ("SESSION_TIMEOUT_S", "inf"),
        ("DRIFT_TOPIC", "drift of interest"),
        ("DRIFT_TOPIC", ".."),
        ("APP_ID", ""),
        ("MIN_INSYNC", "2"),
        ("HEARTBEAT_S", "9"),
        ("DRIFT_TOPIC", "interest.clicks.v1"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"INTEREST_{name}", value)

    with pytest.raises(SettingsError, match=f"INTEREST_{name}") as caught:
        Settings()

    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_keyword_is_named() -> None:
    with pytest.raises(SettingsError, match="'partition' is no setting"):
        Settings(partition=3)


@pytest.mark.parametrize(
    "values",
    [
        {"kafka_security_protocol": "SASL_SSL"},
        {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"},
        {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "PLAIN"},
        {"kafka_password": "secret", "kafka_password_file": __file__},
        {"kafka_cert_file": __file__},
    ],
)
def test_halves_of_a_security_setup_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="INTEREST_KAFKA_") as caught:
        Settings(**values)

    assert "secret" not in str(caught.value)


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_PASSWORD", "KAFKA_CA_FILE", "KAFKA_SASL_MECHANISM", "CHECKPOINT"):
        monkeypatch.setenv(f"INTEREST_{name}", "")

    settings = Settings()

    assert settings.kafka_ca_file is None
    assert settings.checkpoint is None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "scram-sha-512"])
def test_user_and_password_reach_both_clients(mechanism: str, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("geheim ä \n", "utf-8")

    settings = Settings(
        kafka_security_protocol="sasl_ssl",
        kafka_sasl_mechanism=mechanism,
        kafka_username="me",
        kafka_password_file=password,
    )

    kafka_python = settings.kafka_python()
    assert kafka_python["security_protocol"] == "SASL_SSL"
    assert kafka_python["sasl_mechanism"] == mechanism.upper()
    assert kafka_python["sasl_plain_username"] == "me"
    assert kafka_python["sasl_plain_password"] == "geheim ä "
    credentials: Any = settings.faust_credentials()
    assert credentials.protocol.value == "SASL_SSL"
    assert credentials.mechanism.value == mechanism.upper()
    assert (credentials.username, credentials.password) == ("me", "geheim ä ")
    assert isinstance(credentials.ssl_context, ssl.SSLContext)


async def test_a_renewed_token_is_found(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    settings = Settings(
        kafka_security_protocol="SASL_PLAINTEXT",
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_oauth_token_file=token,
    )
    provider = settings.kafka_python()["sasl_oauth_token_provider"]
    credentials: Any = settings.faust_credentials()

    assert isinstance(provider, AbstractTokenProvider)
    assert provider.token() == "first"
    token.write_text("second")
    assert provider.token() == "second"
    assert await credentials.oauth_cb.token() == "second"
    assert credentials.protocol.value == "SASL_PLAINTEXT"


@pytest.mark.parametrize("check", [True, False])
def test_certificates(check: bool, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(CA)

    settings = Settings(kafka_security_protocol="SSL", kafka_ca_file=ca, kafka_check_hostname=check)

    context = settings.kafka_python()["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is check
    assert len(context.get_ca_certs()) == 1
    credentials: Any = settings.faust_credentials()
    assert credentials.protocol.value == "SSL"
    assert credentials.context.check_hostname is check


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("no certificate")
    settings = Settings(kafka_security_protocol="SSL", kafka_ca_file=ca)

    with pytest.raises(SettingsError, match="INTEREST_KAFKA_CA_FILE"):
        settings.kafka_python()


def test_secrets_do_not_show() -> None:
    settings = Settings(
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="PLAIN",
        kafka_username="me",
        kafka_password="geheim",
    )

    assert "geheim" not in repr(settings)
    assert "geheim" not in str(settings.model_dump())
    assert "geheim" not in repr(settings.security())
    assert "geheim" not in repr(settings.faust_credentials())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert Settings(http_host=host).http_access() is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "worker-1", "127.0.0.1.example"])
def test_off_loopback_needs_a_token(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="INTEREST_HTTP_TOKEN_FILE") as caught:
        Settings(http_host=host).http_access()
    assert "\n" not in str(caught.value)

    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    assert Settings(http_host=host, http_token_file=token).http_access() == "0123456789abcdef"


@pytest.mark.parametrize("token", ["0123456789abcde", "0123456789 abcdef", "0123456789abcdeä"])
def test_a_token_that_is_none_is_refused_unseen(token: str, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token, "utf-8")
    for settings in (Settings(http_token=token), Settings(http_token_file=path)):
        with pytest.raises(SettingsError, match="INTEREST_HTTP_TOKEN") as caught:
            settings.http_access()
        assert token[:6] not in str(caught.value)


SECRET = "geheimnis-47114711"


@pytest.mark.parametrize("name", SECRETS)
def test_no_sentence_shows_a_secret(name: str, tmp_path: Path) -> None:
    no_text = tmp_path / "no-text"
    no_text.write_bytes(SECRET.encode() + b"\xff")
    wrong: list[dict[str, Any]] = [
        {name: SECRET, f"{name}_file": __file__},
        {f"{name}_file": SECRET},
        {name: [SECRET]},
        {name: SECRET, "kafka_bootstrap": f"kafka://me:{SECRET}@broker:9092"},
        {name: SECRET, "kafka_security_protocol": "SASL_SSL"},
        {name: SECRET, "heartbeat_s": 9},
        {name: SECRET, "partition": 3},
    ]
    for values in wrong:
        with pytest.raises(SettingsError) as refused:
            Settings(**values)
        assert SECRET not in repr(refused.value)
        assert refused.value.__cause__ is None
    settings = Settings(**{f"{name}_file": no_text})
    with pytest.raises(SettingsError, match="UTF-8") as caught:
        settings._secret(name)
    assert "ff" not in str(caught.value).replace(str(no_text), "")


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_file_that_is_not_there_is_not_named(name: str) -> None:
    """A secret is easily put where the name of its file belongs."""
    with pytest.raises(SettingsError, match=f"INTEREST_{name.upper()}_FILE") as caught:
        Settings(**{f"{name}_file": SECRET})
    assert SECRET not in str(caught.value)
