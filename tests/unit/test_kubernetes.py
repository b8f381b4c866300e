"""The manifests: against the schemas of Kubernetes, the settings, and each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from stream_app.settings import PREFIX, Settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
VERSIONS = ("1.29", "1.33")

# kubernetes-validate knows no resources of operators. These name what their reference asks for, and
# the fields that are used here, so that a slip in a name is found: it is not their whole schema.
TEXT = {"type": "string", "minLength": 1}


def closed(required: tuple[str, ...], **properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


KEYS = {
    "type": "array",
    "items": closed(("parameter", "name", "key"), parameter=TEXT, name=TEXT, key=TEXT),
}
OPERATORS = {
    "ServiceMonitor": closed(
        ("selector", "endpoints"),
        selector=closed(("matchLabels",), matchLabels={"type": "object"}),
        endpoints={
            "type": "array",
            "minItems": 1,
            "items": closed(("port",), port=TEXT, path=TEXT, interval=TEXT),
        },
    ),
    "TriggerAuthentication": closed(
        ("configMapTargetRef", "secretTargetRef"),
        configMapTargetRef=KEYS,  # KEDA takes the user of SASL from here alone
        secretTargetRef=KEYS,
    ),
    "ScaledObject": closed(
        ("scaleTargetRef", "triggers"),
        scaleTargetRef=closed(("name",), apiVersion=TEXT, kind=TEXT, name=TEXT),
        minReplicaCount={"type": "integer"},
        maxReplicaCount={"type": "integer"},
        advanced={"type": "object"},
        triggers={
            "type": "array",
            "minItems": 3,
            "items": closed(
                ("type", "metadata"),
                type={"const": "kafka"},
                authenticationRef=closed(("name",), name=TEXT),
                # KEDA takes text only, numbers too
                metadata=closed(
                    ("bootstrapServers", "consumerGroup", "topic", "lagThreshold"),
                    **dict.fromkeys(
                        (
                            "bootstrapServers",
                            "consumerGroup",
                            "topic",
                            "lagThreshold",
                            "offsetResetPolicy",
                            "sasl",
                            "tls",
                        ),
                        TEXT,
                    ),
                ),
            ),
        },
    ),
}


def documents() -> dict[str, dict[str, Any]]:
    """All documents by kind and name."""
    return {
        f"{document['kind']}/{document['metadata']['name']}": document
        for path in sorted(FOLDER.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text("utf-8"))
    }


DOCUMENTS = documents()
SETTINGS = DOCUMENTS["ConfigMap/interest-stream"]["data"]
WORKERS = DOCUMENTS["StatefulSet/interest-stream"]["spec"]
POD = WORKERS["template"]["spec"]
(WORKER,) = POD["containers"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_fits_its_schema(name: str) -> None:
    document = DOCUMENTS[name]
    if document["kind"] in OPERATORS:
        jsonschema.validate(document["spec"], OPERATORS[document["kind"]])
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_settings_exist_and_are_valid(tmp_path: Path) -> None:
    variables = {**SETTINGS, **{one["name"]: one.get("value", "") for one in WORKER["env"]}}
    del variables["POD_NAME"]
    url = variables["INTEREST_HTTP_URL"].replace("$(POD_NAME)", "interest-stream-0")
    variables["INTEREST_HTTP_URL"] = url
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef")
    for name in variables:
        if name.endswith("_FILE"):
            variables[name] = str(secret)
    settings = Settings(**{k.removeprefix(PREFIX).lower(): v for k, v in variables.items()})
    assert settings.shutdown_timeout_s < POD["terminationGracePeriodSeconds"]
    assert settings.http_access()  # off loopback it has a token
    assert settings.http_port == WORKER["ports"][0]["containerPort"]
    assert url.split(".")[1].split(":")[0] == WORKERS["serviceName"]


def test_paths_of_the_settings_lie_on_volumes() -> None:
    mounts = {mount["mountPath"]: mount for mount in WORKER["volumeMounts"]}
    volumes = {volume["name"] for volume in POD["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in WORKERS["volumeClaimTemplates"]}
    assert {mount["name"] for mount in mounts.values()} == volumes
    for name, value in SETTINGS.items():
        if value.startswith("/"):
            (mount,) = [mounts[path] for path in mounts if value.startswith(path + "/")]
            assert mount.get("readOnly", False) == (name != "INTEREST_DATA_DIR"), name


def test_the_rights_are_those_of_the_image() -> None:
    image = (FOLDER.parent / "Dockerfile").read_text("utf-8")
    context = POD["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in image
    assert context["runAsNonRoot"]
    assert WORKER["securityContext"]["readOnlyRootFilesystem"]
    assert WORKER["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_a_probe_asks_for_what_it_decides() -> None:
    paths = {kind: WORKER[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")}
    assert paths == {"liveness": "/livez", "readiness": "/readyz"}
    startup = WORKER["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


def test_scaling_follows_the_group_and_stops_at_the_partitions() -> None:
    scaled = DOCUMENTS["ScaledObject/interest-stream"]["spec"]
    fields = Settings.model_fields
    triggers = [trigger["metadata"] for trigger in scaled["triggers"]]
    assert {trigger["topic"] for trigger in triggers} == {
        fields[f"{name}_topic"].default for name in ("clicks", "searches", "purchases")
    }
    assert {trigger["consumerGroup"] for trigger in triggers} == {SETTINGS["INTEREST_APP_ID"]}
    brokers = {trigger["bootstrapServers"] for trigger in triggers}
    assert brokers == {SETTINGS["INTEREST_KAFKA_BOOTSTRAP"]}
    assert scaled["maxReplicaCount"] <= int(SETTINGS["INTEREST_PARTITIONS"])
    assert scaled["scaleTargetRef"]["name"] == "interest-stream"


def test_prometheus_finds_the_service_of_the_workers() -> None:
    service = DOCUMENTS["Service/interest-stream"]
    monitor = DOCUMENTS["ServiceMonitor/interest-stream"]["spec"]
    labels = WORKERS["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    # the other service of the same pods has no labels: it would count each worker twice
    assert "labels" not in DOCUMENTS["Service/interest-stream-workers"]["metadata"]
    # rules.yml names the job, which is the name of the service
    assert 'job="interest-stream"' in (FOLDER.parent / "prometheus/rules.yml").read_text("utf-8")
