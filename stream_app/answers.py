"""What the worker's HTTP server answers, as structs: the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stream_app.events import RecommendedItem

Locale = Literal["de", "en", "es", "fr", "ja", "zh"]
"""Languages in which a user is summed up."""


class Liveness(Struct, frozen=True, omit_defaults=True):
    """Whether the worker lives; `reasons` say why it does not."""

    live: bool
    reasons: list[str] = []


class Readiness(Struct, frozen=True):
    """Whether the worker keeps up; `reasons` say why it does not."""

    ready: bool
    reasons: list[str]


class Refusal(Struct, frozen=True):
    """Why a question is not answered, in one sentence."""

    error: str


class KnownInterest(Struct, frozen=True, gc=False):
    """Probability, 0 to 1, that the user turns to the category within the horizon.

    uncertainty  entropy of the probability in bits: 0 sure, 1 open
    low, high    of a hundred pairs with this probability, the share that comes true lies between
                 these nine times out of ten
    """

    category: str
    probability: float
    uncertainty: float
    low: float
    high: float


class KnownStep(Struct, frozen=True, gc=False):
    """One of the last steps of a user, the latest first."""

    time: str
    kind: str
    item_id: str
    category: str


class DriftHistory(Struct, frozen=True, gc=False):
    """What a row knows of changes of interest; all of them stand in the drift topic.

    count      alarms so far
    last       time of the last one, None for none
    statistic  of the test now, None before it has enough events
    threshold  at which the statistic raises an alarm
    """

    count: int
    last: str | None
    statistic: float | None
    threshold: float


class Inspection(Struct, frozen=True, kw_only=True):
    """A row in words.

    erased            whether the user was erased; a row is then what came afterwards
    without           last steps that are left out, as was asked for
    events, steps     applied events, and steps (line items counted)
    items             what is suggested next, best first, as in a recommendation message
    drift_statistic   of the test now, None before it has enough events; an alarm at the threshold
    offsets           per input topic the last applied offset, None for none
    row_checkpoint    whether the row was made by the loaded checkpoint's weights
    """

    user_id: str
    partition: int
    erased: bool
    stored: bool
    without: int
    events: int
    steps: int
    last_event: str | None
    interests: list[KnownInterest]
    items: list[RecommendedItem]
    drift_history: DriftHistory
    drift_statistic: float | None
    drift_threshold: float
    drifts: int
    last_drift: str | None
    recent: list[KnownStep]
    offsets: dict[str, int | None]
    model_version: str
    row_checkpoint: bool


class Summary(Struct, frozen=True):
    """A user in a short paragraph, for people who speak to the user."""

    user_id: str
    locale: Locale
    text: str
