"""Writes the dashboard, ``make dashboards``: the panels are here, their JSON is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

UID = "interest-stream"
SOURCE = DataSourceRef(type_val="prometheus", uid="interest-prometheus")
FILE = Path(__file__).parent / "dashboards" / f"{UID}.json"


@dataclass(frozen=True)
class Panel:
    """A panel and what it asks for.

    queries  (PromQL, legend); the legend of a Stat is its field
    unit     of Grafana's value formats
    width    of 24 columns; a width below 6 is a number instead of a curve
    """

    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 12


NUMBERS = (
    Panel("Workers ready", "Of those that are scraped.", "short", (
        ("sum(interest_ready)", "ready"), ("count(interest_ready)", "workers")), 4),
    Panel("Applied", "Events in a second.", "ops", (
        ('sum(job:interest_events:rate1m{outcome="applied"})', "events/s"),), 4),
    Panel("Latency p99", "From the production of an event to its acknowledged outputs.", "s", (
        ("max(job:interest_event_latency_seconds:p99_1m)", "p99"),), 4),
    Panel("Lag", "Records that are not applied yet.", "short", (
        ("sum(job:interest_consumer_lag_events:sum)", "events"),), 4),
    Panel("Model", "Version of the loaded checkpoint; two while a rollout lasts.", "short", (
        ("count by (version) (interest_model_info)", "{{version}}"),), 4),
    Panel("Age of the model", "Since the end of the log it was trained on.", "s", (
        ("max(job:interest_model_age_seconds:max)", "age"),), 4),
)  # fmt: skip
FLOW = (
    Panel("Events by type and outcome", "Applied, repeats, and dead letters.", "ops", (
        ("job:interest_events:rate1m", "{{event_type}} {{outcome}}"),)),
    Panel("Latency of an event", "From production to acknowledged outputs.", "s", (
        ("job:interest_event_latency_seconds:p50_1m", "p50"),
        ("job:interest_event_latency_seconds:p90_1m", "p90"),
        ("job:interest_event_latency_seconds:p99_1m", "p99"))),
    Panel("Parts of the latency", "Means; they add up to the mean latency.", "s", (
        ("job:interest_event_wait_seconds:mean1m", "{{part}}"),)),
    Panel("Time in each stage", "Seconds in a second, of all workers together.", "s", (
        ("job:interest_stage_seconds:rate1m", "{{stage}}"),)),
    Panel("Lag by partition", "Records that are not applied yet.", "short", (
        ("interest_consumer_lag_events", "{{topic}} {{partition}}"),)),
    Panel("Events in a batch", "A mean.", "short", (
        ("job:interest_batch_events:mean1m", "events"),)),
    Panel("Dead letters by reason", "Of the last five minutes.", "short", (
        ("sum by (reason) (increase(interest_dead_letters_total[5m]))", "{{reason}}"),)),
    Panel("Share of dead letters", "Of 15 minutes; an alert stands at 1 %.", "percentunit", (
        ("job:interest_dead_letters:ratio15m", "share"),)),
)  # fmt: skip
MODEL = (
    Panel(
        "Drift alarms in 1,000 tested steps",
        "Observed, beside the stated false alarms and the band of the real history.",
        "short",
        (
            ("job:interest_drift_alarms_per_1000_steps:rate1d", "observed, of a day"),
            ("1000 / max(interest_drift_average_run_length_steps)", "stated false alarms"),
            ("max by (bound) (interest_drift_history_alarms_per_1000_steps)", "history, {{bound}}"),
        ),
    ),
    Panel("Recommendations by trigger", "What raised them.", "ops", (
        ("job:interest_recommendations:rate5m", "{{trigger}}"),)),
    Panel(
        "Hits among ten",
        "Events of a day whose item was on the user's last list, or among the popular items.",
        "percentunit",
        (("job:interest_list_hits:ratio1d", "{{model}}"),),
    ),
    Panel(
        "Log-loss of category probabilities",
        "A mean of seven days, beside that of the base rates; lower is better.",
        "short",
        (("job:interest_prediction_log_loss:mean7d", "{{model}}"),),
    ),
    Panel(
        "Calibration",
        "What happened less what was said, by what was said, of seven days; 0 is right.",
        "percentunit",
        (('job:interest_calibration_gap:mean7d{model="worker"}', "{{bin}}"),),
    ),
    Panel(
        "Calibration error",
        "The gaps without their signs, weighted by their cases; an alert stands at 10 %.",
        "percentunit",
        (("job:interest_calibration_error:mean7d", "{{model}}"),),
    ),
)  # fmt: skip
WORKERS = (
    Panel("Readiness", "1 while /readyz answers 200.", "short", (
        ("interest_ready", "{{instance}}"),), 8),
    Panel("Recovery", "Share of the changelog that has been read.", "percentunit", (
        ("interest_recovery_progress_ratio", "{{instance}}"),), 8),
    Panel("Records left to recover", "0 when recovery is done.", "short", (
        ("interest_recovery_remaining_records", "{{instance}}"),), 8),
    Panel("Age of the commit", "How long applied events wait for it.", "s", (
        ("interest_commit_age_seconds", "{{instance}}"),), 8),
    Panel("Rows written, expired, erased, put right", "In a second.", "ops", (
        ("sum(rate(interest_rows_written_total[5m]))", "written"),
        ("sum(rate(interest_expired_rows_total[5m]))", "expired"),
        ("sum(rate(interest_erased_users_total[5m]))", "users erased"),
        ("sum(rate(interest_foreign_rows_total[5m]))", "of another worker")), 8),
    Panel("Memory", "Resident memory of each worker.", "bytes", (
        ('process_resident_memory_bytes and on (instance) interest_ready', "{{instance}}"),), 8),
)  # fmt: skip
ROWS = (("Now", NUMBERS), ("Flow", FLOW), ("Interests", MODEL), ("Workers", WORKERS))


def dashboard() -> str:
    """The JSON of the dashboard."""
    made = (
        Dashboard("Interest stream")
        .uid(UID)
        .tags([UID])
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .readonly()
    )
    for title, panels in ROWS:
        made = made.with_row(Row(title))
        for panel in panels:
            made = made.with_panel(_built(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _built(panel: Panel) -> Stat | Timeseries:
    kind = Stat if panel.width < 6 else Timeseries
    made = (
        kind()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(4 if kind is Stat else 8)
    )
    for letter, (expression, legend) in zip("ABCD", panel.queries, strict=False):
        query = Dataquery().expr(expression).legend_format(legend).ref_id(letter)
        made = made.with_target(query.datasource(SOURCE))
    if kind is Stat and panel.title == "Model":
        made = made.text_mode("name")
    return made


if __name__ == "__main__":
    FILE.write_text(dashboard(), "utf-8")
