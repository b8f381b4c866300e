"""Sees to it that a recovery ends: Faust's loop waits for a record at the changelog's last offset.

There need not be one. A marker of a transaction may stand there, or compaction may have removed it:
the consumer's position then passes the end, and nothing more comes. And where the position does not
move either, the worker ends, so that it is started again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from faust.types import TP

from stream_app.errors import RecoveryError
from stream_app.settings import Settings

logger = logging.getLogger(__name__)

PASSED_AFTER_LOOKS = 4
"""Looks without a change after which the records up to the position are in the store, or with
Faust's loop: they are handed on between two looks."""

STALLED_S = 60.0


class RecoveryWatch:
    """Looks at Faust's recovery every now and then.

    Args:
        app: the Faust app.
        clock: seconds that never fall.
    """

    def __init__(self, app: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._seen: object = None
        self._since = clock()
        self._looks = 0

    @property
    def still_s(self) -> float:
        """Seconds for which nothing has come although records remain."""
        return self._clock() - self._since

    def look(self) -> None:
        """End the recovery of partitions whose end has no record.

        Raises:
            RecoveryError: records remain, and none has come for `STALLED_S` seconds.
        """
        recovery = self._app.tables.recovery
        left = _left(recovery) if recovery.in_recovery else {}
        seen = (recovery._recovery_started_at, left)
        if not left or seen != self._seen:
            self._seen, self._since, self._looks = seen, self._clock(), 0
            return
        self._looks += 1
        if self._looks >= PASSED_AFTER_LOOKS and self._app.tables.changelog_queue.empty():
            self._pass_over(recovery, left)
        if self.still_s > STALLED_S:
            tp, count = next(iter(left.items()))
            raise RecoveryError(
                f"The recovery stands: {count} records of {tp.topic} partition {tp.partition} are "
                f"left, and none has come for {STALLED_S:g} s; look at the brokers, and start the "
                "worker again."
            )

    def _pass_over(self, recovery: Any, left: dict[TP, int]) -> None:
        for tp in left:
            last = recovery.active_highwaters[tp]
            position = self._app.consumer.position_now(tp)
            if position is not None and position > last:
                logger.info("%s partition %d has no record at its end", tp.topic, tp.partition)
                recovery.active_offsets[tp] = last  # Faust looks at it within 5 s


def _left(recovery: Any) -> dict[TP, int]:
    return {tp: count for tp, count in recovery.active_remaining().items() if count > 0}


def check_store(settings: Settings, next_offset: int, end: int) -> None:
    """Refuse a local store that is ahead of its changelog.

    Faust looks at that too, but not where one of the two offsets is 0.

    Args:
        next_offset: of the changelog, after the last record that is in the store.
        end: offset that the next record of the changelog will get.

    Raises:
        RecoveryError: the store holds what the changelog does not.
    """
    if next_offset > end:
        raise store_is_ahead(settings)


def store_is_ahead(settings: Settings) -> RecoveryError:
    """What ends the worker when the local store is ahead of its changelog."""
    return RecoveryError(
        "The local store is ahead of its changelog, so the topic was made anew or has lost "
        "records, and the store may be the only copy of its rows; make new ones with "
        f"interest-stream replay --as, or keep a copy of the folder {settings.data_dir}, delete it "
        "and start the worker again."
    )
