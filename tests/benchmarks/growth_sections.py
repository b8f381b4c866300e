"""How rates, memory and sizes are shown by the number of users."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from model.evaluation.goals import Goal
from tests.benchmarks.contenders import Measurement
from tests.benchmarks.figures import WAITING, Spread, cpu_us, rates, stages_us
from tests.benchmarks.goals import as_list
from tests.benchmarks.results import Plot, Section, Series, Table

GOAL_RATIO = 0.8
"""Of the rate at the smallest number of users."""
GOAL_MEMORY_MB = 800
GOAL_ROW_BYTES = 2_048
MB = 1e6
SHOWN_STAGES = ("read", "transition", "changelog", "store")


@dataclass
class Size:
    """What one number of users gave.

    row_bytes, key_bytes  of a stored row, and of its key
    recovery_s            until a worker without a store was ready
    rounds                rates, and where the time went
    rss_end_bytes         of the worker's process at the end of each round
    rss_peak_bytes        the most at any look, recovery included
    store_bytes           of all files of the store, after the last round
    changelog_records     that nothing has compacted
    """

    users: int
    row_bytes: int
    key_bytes: int
    recovery_s: float = 0.0
    rounds: list[Measurement] = field(default_factory=list)
    rss_end_bytes: list[int] = field(default_factory=list)
    rss_peak_bytes: int = 0
    store_bytes: int = 0
    changelog_records: int = 0

    @property
    def record_bytes(self) -> int:
        """Of a row in the changelog, without what the broker adds."""
        return self.row_bytes + self.key_bytes

    @property
    def rows_per_event(self) -> float:
        """Rows that an event wrote: fewer than one where events of a user met in a batch."""
        written = self.changelog_records - self.users
        return written / sum(measured.events for measured in self.rounds)


def ratio(size: Size, to: Size) -> Spread:
    """The rate of one size over that of another, round by round."""
    pairs = zip(rates(size.rounds), rates(to.rounds), strict=True)
    return Spread.of([one / other for one, other in pairs])


def goals_of(sizes: Sequence[Size]) -> list[Goal]:
    """What is asked of the largest size beside the smallest."""
    first, last = sizes[0], sizes[-1]
    return [
        Goal(
            f"rate at {last.users:,} users, of that at {first.users:,}",
            "at least",
            GOAL_RATIO,
            ratio(last, first).median,
            "",
            2,
        ),
        Goal(
            f"memory of the worker at {last.users:,} users, the most",
            "at most",
            GOAL_MEMORY_MB,
            last.rss_peak_bytes / MB,
            "MB",
        ),
        Goal("a user's row", "at most", GOAL_ROW_BYTES, last.row_bytes, "bytes"),
    ]


def cause(first: Size, last: Size) -> str:
    """Where the difference between two sizes comes from, by rows and by processor time."""
    sentences = [
        f"At {first.users:,} users events of one user meet in a batch, and an event writes "
        f"{first.rows_per_event:.2f} rows to store and changelog; at {last.users:,} it writes "
        f"{last.rows_per_event:.2f}."
    ]
    before, after = cpu_us(first.rounds), cpu_us(last.rounds)
    if before is not None and after is not None:
        grown = {
            stage: stages_us(last.rounds)[stage] - stages_us(first.rounds)[stage]
            for stage in stages_us(first.rounds)
            if stage not in WAITING
        }
        rest = after - before - sum(grown.values())
        most = sorted(grown, key=lambda stage: -grown[stage])[:2]
        parts = " and ".join(f"{grown[stage]:.1f} us are {stage}" for stage in most)
        sentences.append(
            f"It takes {after:.1f} us of the worker's processor time instead of {before:.1f}: "
            f"{parts}, and {rest:.1f} us lie outside of the stages that compute, in the record "
            "batches of the changelog and in RocksDB's own threads."
        )
    return " ".join(sentences)


def rate_section(sizes: Sequence[Size], events: int, broker: str, goals: Sequence[Goal]) -> Section:
    """Rates, and the stages of the worker that could depend on the number of rows."""
    rows, spreads = [], []
    for size in sizes:
        spread, of_first = Spread.of(rates(size.rounds)), ratio(size, sizes[0])
        stages, cpu = stages_us(size.rounds), cpu_us(size.rounds)
        lists = sum(m.recommendations for m in size.rounds) / sum(m.events for m in size.rounds)
        spreads.append(spread)
        rows.append(
            [
                f"{size.users:,}",
                f"{spread.median:,.0f}",
                f"{spread.lowest:,.0f} to {spread.highest:,.0f}",
                f"{of_first.median:.2f}",
                f"{of_first.lowest:.2f} to {of_first.highest:.2f}",
                f"{size.rows_per_event:.2f}",
                "" if cpu is None else f"{cpu:.1f}",
                *(f"{stages[stage]:.1f}" for stage in SHOWN_STAGES),
                f"{lists:.2f}",
            ]
        )
    return Section(
        "growth",
        "Growth: the rate by the number of users",
        f"{events:,} events a round over random users, every one of whom has a row from about 20 "
        "events before the measurement; a worker with its store at hand, end to end as in the "
        f"throughput. All sizes lie on {broker}. Rows: written by an event. CPU us: processor time "
        "of the worker per event; the stages are by its histograms, and changelog waits for the "
        "broker while other partitions compute. "
        f"Lists are recommendations per event.\n\n{cause(sizes[0], sizes[-1])}{as_list(goals[:1])}",
        Table(
            [
                "users",
                "events/s",
                "spread",
                "of the first",
                "spread",
                "rows",
                "CPU us",
                *(f"{stage} us" for stage in SHOWN_STAGES),
                "lists",
            ],
            rows,
        ),
        Plot(
            "lines",
            "users",
            "events/s",
            [
                Series(
                    "worker",
                    [size.users for size in sizes],
                    [spread.median for spread in spreads],
                    [spread.lowest for spread in spreads],
                    [spread.highest for spread in spreads],
                )
            ],
            is_x_logarithmic=True,
        ),
    )


def memory_section(
    sizes: Sequence[Size], goals: Sequence[Goal], rest_bytes: int, cache_mb: int
) -> Section:
    """Memory of the worker, and bytes on disk and in the broker.

    rest_bytes  of a process that has the worker's libraries and its model, and does nothing
    cache_mb    what RocksDB may take for its cache and for what it has not written yet
    """
    held = sizes[-1].rss_peak_bytes - rest_bytes - cache_mb * 1024**2
    ends = [statistics.median(size.rss_end_bytes) / MB for size in sizes]
    series = {
        "worker's memory, at the end of a round": ends,
        "worker's memory, the most": [size.rss_peak_bytes / MB for size in sizes],
        "RocksDB": [size.store_bytes / MB for size in sizes],
        "changelog, compacted": [size.users * size.record_bytes / MB for size in sizes],
    }
    rows = [
        [
            f"{size.users:,}",
            f"{end:,.0f}",
            f"{size.rss_peak_bytes / MB:,.0f}",
            f"{size.recovery_s:,.1f}",
            f"{size.store_bytes / MB:,.0f}",
            f"{size.store_bytes / size.users:,.0f}",
            f"{size.changelog_records:,}",
            f"{size.changelog_records * size.record_bytes / MB:,.0f}",
            f"{size.users * size.record_bytes / MB:,.0f}",
        ]
        for size, end in zip(sizes, ends, strict=True)
    ]
    return Section(
        "memory",
        "Growth: memory and sizes by the number of users",
        "Resident memory of the worker's process, in 10**6 bytes: at the end of a round (median), "
        "and the most that any look found, from the first start on, which reads all rows from the "
        "changelog. RocksDB: all files of its folder after the last round, old versions of rows "
        "included, in all and by user. Changelog: its records after the last round, which this "
        f"broker does not compact, their keys and values of {sizes[0].record_bytes:,} bytes, and "
        "what compaction would leave.\n\n"
        f"Of the most at {sizes[-1].users:,} users {rest_bytes / MB:,.0f} MB are the interpreter, "
        f"its libraries and the model, warmed up; {cache_mb} MiB are RocksDB's budget for all "
        f"stores; {held / MB:,.0f} MB are records that wait, in the consumer and in the lane, the "
        "batches at hand, and what the allocator keeps: every worker here begins with a backlog."
        f"{as_list(goals[1:])}",
        Table(
            [
                "users",
                "memory MB",
                "the most",
                "first start s",
                "RocksDB MB",
                "bytes a user",
                "changelog records",
                "changelog MB",
                "compacted MB",
            ],
            rows,
        ),
        Plot(
            "lines",
            "users",
            "MB",
            [Series(name, [size.users for size in sizes], y) for name, y in series.items()],
            is_logarithmic=True,
            is_x_logarithmic=True,
        ),
    )
