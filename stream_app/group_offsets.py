"""The committed offsets of a consumer group: read, and set while it has no members."""

from __future__ import annotations

import time
from collections.abc import Mapping

from kafka import TopicPartition
from kafka.errors import NoError, UnknownMemberIdError
from kafka.structs import OffsetAndMetadata

from stream_app.admin import admin_client
from stream_app.errors import BrokerError, UsageError
from stream_app.settings import Settings

ASK_INTERVAL_S = 0.2
LEAVE_ALLOWANCE_S = 2.0

Offsets = Mapping[TopicPartition, int]


def committed(settings: Settings) -> dict[TopicPartition, int]:
    """The committed offsets of the input topics.

    Raises:
        BrokerError: the broker does not do what is asked.
    """
    with admin_client(settings) as admin:
        offsets = admin.list_group_offsets(settings.app_id).get(settings.app_id, {})
    return {
        place: found.offset
        for place, found in offsets.items()
        if place.topic in settings.input_topics and found.offset >= 0
    }


def set_offsets(settings: Settings, offsets: Offsets) -> None:
    """Set the offsets of the group, which a broker refuses while the group has members.

    A member that has just ended may be one for a session timeout more.

    Raises:
        UsageError: the group has members.
        BrokerError: the broker does not do what is asked.
    """
    wanted = {place: OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()}
    deadline = time.monotonic() + settings.session_timeout_s + LEAVE_ALLOWANCE_S
    with admin_client(settings) as admin:
        while True:
            answers = set(admin.alter_group_offsets(settings.app_id, wanted).values())
            if UnknownMemberIdError not in answers:
                break
            if time.monotonic() > deadline:
                raise UsageError(
                    f"The group {settings.app_id} has members, so its offsets cannot be set; end "
                    "its workers and try again."
                )
            time.sleep(ASK_INTERVAL_S)
    for error in answers - {NoError}:
        raise BrokerError(
            f"The offsets of the group {settings.app_id} cannot be set ({error.__name__}); look at "
            "the rights of the user and the broker's log."
        )
