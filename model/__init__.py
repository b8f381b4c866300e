"""The model of a user's interest: pure functions of arrays, numpy and torch only."""
