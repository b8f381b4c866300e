"""Weights of the drift statistic, in the order of ``drift.features``.

``python -m model.evaluation.drift_learning`` makes them of control users of
tmall2014, amazon_beauty, taobao_9days.
"""

import numpy as np

WEIGHTS = np.array(
    [
        2.4092,
        0.7384,
        -1.7343,
        -1.9867,
        -0.8278,
        -2.3625,
        0.0611,
        1.4859,
        0.8108,
        -0.7156,
        -3.1860,
        -1.2386,
        3.1700,
        -0.0100,
        1.1709,
        0.6832,
        6.2035,
        -7.0965,
        -0.1548,
        1.2198,
        1.1153,
        0.6612,
        -6.5994,
        -3.3868,
        -1.2366,
        2.5565,
    ]
)
INTERCEPT = 4.6665
