"""Figures of predictions on event logs: one module a protocol, `protocols.py` lists them by name.

Every figure comes from rows that the one transition makes, in one pass over the events in order;
what is chosen is chosen on events before the cut-off.
"""
