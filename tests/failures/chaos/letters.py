"""The dead letters that a scenario expects."""

from __future__ import annotations

from collections import Counter

from stream_app.lane.reading import read_records
from stream_app.settings import Settings
from tests.failures.chaos.run import Run


def reasons(settings: Settings) -> Counter[str]:
    """How many records have a dead letter, by its reason; a letter that came twice counts once."""
    found: dict[tuple[str, str, str], str] = {}
    for partition in range(settings.partitions):
        for letter in read_records(settings, settings.dead_letters_topic, partition):
            headers = {name: value.decode() for name, value in letter.headers}
            place = headers["source-topic"], headers["source-partition"], headers["source-offset"]
            found[place] = headers["reason"]
    return Counter(found.values())


def longest_letter(settings: Settings) -> int:
    """Bytes of the longest value among the dead letters."""
    letters = [
        letter
        for partition in range(settings.partitions)
        for letter in read_records(settings, settings.dead_letters_topic, partition)
    ]
    return max(len(letter.value or b"") for letter in letters)


def require_reasons(run: Run, expected: Counter[str]) -> None:
    """Break the scenario when the dead letters have other reasons; all has to be committed."""
    found = reasons(run.settings)
    run.require(
        found == expected, f"the dead letters say {dict(found)} instead of {dict(expected)}"
    )
