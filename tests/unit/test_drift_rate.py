"""What the alarm rate is over: the worker counts the steps that the calibration counts."""

from __future__ import annotations

import numpy as np

from model.calibration import run_test
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import clicks, run


def test_the_transition_counts_the_steps_that_the_calibration_counts() -> None:
    checkpoint = tiny_checkpoint()
    rng = np.random.default_rng(5)
    log = clicks(rng.integers(0, 5, 300).tolist(), rng.integers(1, 9, 300).tolist())
    expected = run_test(log, checkpoint)
    for cuts in ([], [100, 101, 250]):
        _, outputs = run(log, 5, checkpoint, cuts)
        tested = sum(int(out.tested.sum()) for _, out in outputs)
        assert tested == int(expected.tested.sum()) == len(expected.tested_ms) > 0
