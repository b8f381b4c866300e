"""Every error that the stream application raises on purpose.

    InterestStreamError          exit code 1: something failed
    ├── UsageError               exit code 2: asked for something that cannot be
    │   └── SettingsError        a setting has a wrong value
    ├── InvalidEvent             a record is no event; carries a reason code
    ├── TopicError               a topic is missing, or is not as it has to be
    ├── BrokerError              no broker answers, or the embedded broker does not start
    ├── DeadLetterError          a dead letter cannot be read or sent again
    └── WorkerError              the worker cannot go on
        ├── StoreError           the local store does not fit the topics, or is damaged
        └── RecoveryError        the states cannot be rebuilt from the changelog

The message is one sentence that says what is wrong and what to do; the command line prints it
without a stack trace and ends with `exit_code`.
"""

from __future__ import annotations

from typing import ClassVar


class InterestStreamError(Exception):
    """Base of all errors above; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class UsageError(InterestStreamError):
    """The caller asked for something that cannot be done as asked."""

    exit_code: ClassVar[int] = 2


class SettingsError(UsageError):
    """A setting has a wrong value; the message names its environment variable."""


class InvalidEvent(InterestStreamError):
    """A record that breaks its contract.

    Attributes:
        reason: stable reason code, a value of `stream_app.events.Reason`.
        message: one sentence for the person who reads the dead letter.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class TopicError(InterestStreamError):
    """A topic is missing, cannot be made, or differs from the settings."""


class BrokerError(InterestStreamError):
    """No broker answers, or the embedded broker does not start."""


class DeadLetterError(InterestStreamError):
    """A dead letter cannot be read, or cannot be sent to its topic again."""


class WorkerError(InterestStreamError):
    """The worker cannot go on; it ends and starts again from the committed offsets."""


class StoreError(WorkerError):
    """The local store does not fit the topics it was filled from, or a row of it is damaged."""


class RecoveryError(WorkerError):
    """The states of the users cannot be rebuilt from the changelog."""
