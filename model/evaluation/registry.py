"""The protocols by name, as `interest-stream evaluate --protocol` knows them."""

from __future__ import annotations

from collections.abc import Mapping

from model.errors import ModelError
from model.evaluation import contest, continual, drift, next_item, sessions, window
from model.evaluation.protocols import Protocol

PROTOCOLS: Mapping[str, Protocol] = {
    "window": window.protocol,
    "contest": contest.protocol,
    "successive": next_item.successive,
    "last": next_item.last,
    "leave-one-out": next_item.leave_one_out,
    "sessions": sessions.protocol,
    "continual": continual.protocol,
    "drift": drift.protocol,
}


def named(name: str) -> Protocol:
    """The protocol of a name; ModelError, which lists them, when there is none."""
    if name not in PROTOCOLS:
        raise ModelError(f"No protocol is named {name!r}; there are: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
