"""The demo: broker, worker and events in one terminal, with a summary against what is known."""
