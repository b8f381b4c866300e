"""Latency as latency.py measures it, on noida-db: a broker that takes less time of its own.

python -m tests.benchmarks.latency_noida [--quick] [--rounds N] [--throughput N]
    [--seconds S] [--json FILE]
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.benchmarks.latency import make_latency_parser, measure_all
from tests.benchmarks.latency_sections import NOIDA
from tests.benchmarks.processor_time import family
from tests.noida import NoidaBroker


def main() -> None:
    """Measure on one noida-db, with topics of its own for every case."""
    arguments = make_latency_parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="interest-noida-") as folder:
        home = Path(folder)
        with NoidaBroker(home / "data", home / "noida.log") as broker:
            measure_all(arguments, NOIDA, broker.bootstrap, family(broker._process.pid))


if __name__ == "__main__":
    main()
