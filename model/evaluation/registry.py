"""The protocols by name, as `interest-stream evaluate --protocol` knows them."""

from __future__ import annotations

from collections.abc import Mapping

from model.errors import ModelError
from model.evaluation import contest, drift, window
from model.evaluation.protocols import Protocol

PROTOCOLS: Mapping[str, Protocol] = {
    "window": window.protocol,
    "contest": contest.protocol,
    "drift": drift.protocol,
}


def named(name: str) -> Protocol:
    """The protocol of a name; ModelError, which lists them, when there is none."""
    if name not in PROTOCOLS:
        raise ModelError(f"No protocol is named {name!r}; there are: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
