"""Coverage-guided fuzzing with atheris, which is installed by hand; never part of `make test`.

    .venv/bin/pip install atheris && .venv/bin/python -m tests.failures.fuzz.fuzz events CORPUS

The targets are events, rows, journal and checkpoint. CORPUS is a folder that keeps what was found;
options of libFuzzer follow it, as in -max_total_time=150. A finding becomes a test in
tests/unit/test_fuzz_*.py.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["model", "stream_app"]):
    from model.events import EventType
    from tests import fuzz_targets as targets

HEAD = 3
"""Bytes before the new ones of a change."""


def events(data: bytes) -> None:
    if data:
        targets.feed_event(EventType(data[0] % 3), data[1:])


def rows(data: bytes) -> None:
    targets.feed_row(patched(targets.a_row(), data))


def patched(content: bytes, data: bytes) -> bytes:
    """Content with changes: place (two bytes), length, and the new bytes, one after another."""
    changed = bytearray(content)
    while len(data) > HEAD:
        place, length = int.from_bytes(data[:2], "big") % len(changed), data[2] % 16 + 1
        piece = data[HEAD : HEAD + length][: len(changed) - place]
        changed[place : place + len(piece)] = piece
        data = data[HEAD + length :]
    return bytes(changed)


def journal(data: bytes) -> None:
    targets.feed_journal(data)


def checkpoint(data: bytes) -> None:
    """One file of a checkpoint: the first byte says which; then its content, or changes of it."""
    if data:
        name = targets.FILES[data[0] % len(targets.FILES)]
        whole = data[0] < 128
        content = data[1:] if whole else patched(targets.checkpoint_files()[name], data[1:])
        targets.feed_checkpoint({name: content}, HOME)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "events": events,
    "rows": rows,
    "journal": journal,
    "checkpoint": checkpoint,
}


def seed(target: str, corpus: Path) -> None:
    """Something well-formed to begin with."""
    corpus.mkdir(parents=True, exist_ok=True)
    made: list[bytes] = [b""]
    if target == "checkpoint":
        files = targets.checkpoint_files()
        made = [bytes([i]) + files[name] for i, name in enumerate(targets.FILES)]
        made += [bytes([first, 0, 20, 3, 0, 0, 128, 127]) for first in (128, 129, 130)]
    elif target == "rows":
        made = [bytes([place // 256, place % 256, 0, 255]) for place in range(0, 1400, 100)]
    elif target == "events":
        head = b'{"event_id":"e","user_id":"ann","timestamp":1700000000000,'
        made = [
            b"\x00" + head + b'"item_id":"i","category":"c","action":"cart"}',
            b"\x01" + head + b'"query":"blue shoes","results":3}',
            b"\x02" + head + b'"items":[{"item_id":"i","quantity":2,"price":1.5}]}',
        ]
    for number, content in enumerate(made):
        (corpus / f"seed-{number}").write_bytes(content)


if __name__ == "__main__":
    name, corpus = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("error")
    seed(name, corpus)
    with tempfile.TemporaryDirectory() as home:
        HOME = Path(home)
        atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], TARGETS[name])
        atheris.Fuzz()
