"""The fenced code blocks of the documents, and the programs that some of them take."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LANGUAGES = Path(__file__).parent / "languages"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "deploy/*.md", "model/*.md", "tests/*/*.md", "stream_app/*/*.md")
    for path in ROOT.glob(pattern)
)
_FENCE = re.compile(r"^(#+) ([^\n]*)$|^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block by its document, the heading above it, its language and its number among those."""

    document: str
    heading: str
    language: str
    number: int
    text: str

    @property
    def name(self) -> str:
        return f"{self.document} / {self.heading} / {self.language or 'text'} {self.number}"


def blocks() -> list[Block]:
    """All blocks of all documents, in their order."""
    found: list[Block] = []
    for path in DOCUMENTS:
        document, heading = str(path.relative_to(ROOT)), ""
        for match in _FENCE.finditer(path.read_text("utf-8")):
            if match[1]:
                heading = match[2]
                continue
            before = [(one.document, one.heading, one.language) for one in found]
            number = before.count((document, heading, match[3])) + 1
            found.append(Block(document, heading, match[3], number, match[4]))
    return found


def block(name: str) -> str:
    """The text of the block of a name."""
    return next(one.text for one in blocks() if one.name == name)


def with_names(text: str, names: dict[str, str]) -> str:
    """The text with names of a test in the place of those shown; each of them has to be there."""
    for shown, own in names.items():
        assert shown in text, shown
        text = text.replace(shown, own)
    return text


def program(name: str, package: str) -> str:
    """The path of a program; a test skips without it, and fails where all have to run."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed; it is in Debian's package {package}")
    return str(found)


def missing(reason: str) -> None:
    """Skip the test, or fail it where all have to run."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def node_folder() -> Path:
    """The folder with Node's packages, which are installed when these are not there."""
    npm = program("npm", "npm")
    lock, installed = LANGUAGES / "package-lock.json", LANGUAGES / "node_modules" / ".of-lock.json"
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # tests run side by side
        wanted = held.read()
        if not installed.is_file() or installed.read_bytes() != wanted:
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            run = subprocess.run(
                command, cwd=LANGUAGES, timeout=280, capture_output=True, text=True
            )
            if run.returncode:
                missing(f"npm cannot install the packages of tests/languages: {run.stderr[-500:]}")
            installed.write_bytes(wanted)
    return LANGUAGES
