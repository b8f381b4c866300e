"""Errors of the model package.

ModelError
├── StateError        a stored row cannot be read, or would be too large
├── CheckpointError   a checkpoint directory is missing, damaged or of another version
└── EventLogError     an event log file cannot be read
"""

from __future__ import annotations


class ModelError(Exception):
    """Base of all errors raised by this package; its text says what to do."""


class StateError(ModelError):
    """A stored row cannot be read, or would be too large."""


class CheckpointError(ModelError):
    """A checkpoint directory is missing, damaged or of another version."""


class EventLogError(ModelError):
    """An event log file cannot be read."""
