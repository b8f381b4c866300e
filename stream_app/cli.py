"""The command line: ``interest-stream …``. Wiring only; every command is a call or two."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model.errors import ModelError
from stream_app import file_commands, user_commands
from stream_app.drift_commands import drift_app
from stream_app.errors import InterestStreamError, UsageError
from stream_app.letter_commands import letters_app
from stream_app.terminal import console, plain, stages
from stream_app.verify_command import verify_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Follows what the users of a shop are interested in, event by event.",
)
topics_app = typer.Typer(no_args_is_help=True, help="Create or check the topics.")
app.add_typer(topics_app, name="topics")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(drift_app, name="drift")
REPLAY_HELP = (
    "Send the events of FILE to the input topics; or replay the input topics from a time on.\n\n"
    "With --offline nothing is sent to the input topics: the rows are made of FILE at once, and "
    "published as those of an application id that has none yet. Its workers start with them.\n\n"
    "Times are those of the Kafka records. With --as, a worker makes new rows beside the old ones, "
    "from the events since that time alone; rows, group and outputs of the old ones stay as they "
    "are, and the outputs of the replay go to topics of its own, TOPIC.APP_ID.\n\n"
    "Without --as, a worker goes over the events again on top of the present rows, which know by "
    "their offsets what they have applied. That is good for events that were skipped because "
    "somebody set the group's offsets forwards: they come in for users of whom nothing later from "
    "the same topic has been applied. All others need new rows."
)
CheckpointOption = Annotated[Path | None, typer.Option(help="Checkpoint directory.")]


def main() -> None:
    """Runs a command; errors of ours are one sentence, 2 for wrong use and 1 for failure."""
    try:
        app()
    except (InterestStreamError, ModelError) as error:
        sentence = f"[red]{type(error).__name__}:[/] {plain(error)}"
        console.print(sentence, soft_wrap=True, highlight=False)
        sys.exit(error.exit_code if isinstance(error, InterestStreamError) else 1)


@app.command()
def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, max=86_400, help="How long events come in.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Replay this event log instead.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
    checkpoint: CheckpointOption = None,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Number of workers.")] = 1,
    users: Annotated[int, typer.Option(min=1, help="Simulated shoppers.")] = 1000,
    days: Annotated[int, typer.Option(min=2, help="Simulated days.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation and the training.")] = 0,
    with_page: Annotated[bool, typer.Option("--ui/--no-ui", help="Serve the live page.")] = True,
) -> None:
    """Watch events go through a broker and a worker, then compare with what is known."""
    from stream_app.demo.run import DemoOptions, run_demo

    options = DemoOptions(seconds, data, summary, checkpoint, workers, users, days, seed, with_page)
    run_demo(options, Console())


@app.command()
def worker(
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="End in order when standard input ends.")
    ] = False,
    until: Annotated[
        Path | None, typer.Option(hidden=True, help="Offsets at which a replay ends.")
    ] = None,
) -> None:
    """Run a worker; settings come from INTEREST_* variables. Ends in order on SIGTERM."""
    from stream_app.settings import Settings
    from stream_app.worker import read_until, run

    if with_parent:
        threading.Thread(target=end_with_input, daemon=True).start()
    sys.exit(run(Settings(), until=None if until is None else read_until(until)))


def end_with_input() -> None:
    """A pipe from the parent ends however the parent ends, also by kill -9.

    Read without ``sys.stdin``, whose lock a thread must not hold when the interpreter ends.
    """
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="Off loopback the page asks for the token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    url: Annotated[list[str] | None, typer.Option(help="A worker; once for each of them.")] = None,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="End in order when standard input ends.")
    ] = False,
) -> None:
    """Serve the live page: flow, interests, drifts and single users, until Ctrl-C."""
    from stream_app.settings import Settings

    try:
        from stream_app.ui.command import run_page
    except ImportError as error:
        raise UsageError(
            f"The page needs NiceGUI ({error}); run pip install 'interest-stream[ui]'."
        ) from None

    if with_parent:
        threading.Thread(target=end_with_input, daemon=True).start()
    run_page(Settings(), host, port, url or ())


@app.command()
def broker(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Loopback port.")] = 9092,
) -> None:
    """Run the embedded broker until Ctrl-C; it keeps nothing on disk."""
    from stream_app.broker import EmbeddedBroker

    with EmbeddedBroker(port) as running:
        console.print(f"Broker at {running.bootstrap}; Ctrl-C ends it.")
        try:
            sys.exit(running.wait())
        except KeyboardInterrupt:
            console.print("Ended.")


@topics_app.command("create")
def topics_create() -> None:
    """Create the topics that are missing."""
    from stream_app import topics
    from stream_app.settings import Settings

    made = topics.create(Settings())
    console.print(f"Created {', '.join(made)}." if made else "All topics are there.")


@topics_app.command("check")
def topics_check() -> None:
    """Check that the topics lose and split no data; exit code 1 when they could."""
    from stream_app import topics
    from stream_app.settings import Settings

    findings = topics.check(Settings())
    for finding in findings:
        console.print(str(finding), soft_wrap=True)
    if any(finding.is_certain for finding in findings):
        raise typer.Exit(1)
    if not findings:
        console.print("All topics are as they have to be.")


@app.command(help=REPLAY_HELP)
def replay(
    file: Annotated[
        Path | None, typer.Argument(help="Event log: .parquet, .csv or .jsonl.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, max=1e9, help="Events of FILE a second.")
    ] = None,
    columns: Annotated[
        str, typer.Option("--map", help="Columns of FILE, like user_id=visitor,category=.")
    ] = "",
    types: Annotated[
        str, typer.Option(help="Event types of FILE, like view=click,basket=click:cart.")
    ] = "",
    go_on: Annotated[
        bool, typer.Option("--continue", help="Go on where sending FILE was interrupted.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Make the rows of FILE without the input topics.")
    ] = False,
    since: Annotated[
        str | None, typer.Option("--from", help="Replay the input topics from this time on.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Nothing at or after this time is applied.")
    ] = None,
    app_id: Annotated[
        str | None, typer.Option("--as", help="Application id of new rows beside the old ones.")
    ] = None,
) -> None:
    if file is not None:
        if since or until or app_id:
            raise UsageError("--from, --to and --as replay the input topics; give them no FILE.")
        if not offline:
            _send_file(file, rate, columns, types, go_on)
        elif rate is not None or go_on:
            raise UsageError(
                "--rate and --continue are of events that are sent; --offline sends none."
            )
        else:
            _back_fill(file, columns, types)
        return
    if columns or types or go_on:
        raise UsageError("--map, --types and --continue are of a FILE; give one.")
    if offline:
        raise UsageError("--offline makes rows of a file; give a FILE.")
    if since is None:
        raise UsageError("There is nothing to replay; give a FILE, or --from with a time.")
    if rate is not None:
        raise UsageError("--rate goes with a FILE; a replay of the topics is as fast as it goes.")
    _replay_topics(since, until, app_id)


def _replay_topics(since: str, until: str | None, app_id: str | None) -> None:
    from stream_app import replay
    from stream_app.settings import Settings
    from stream_app.times import parse_time

    settings = Settings()
    from_ms, to_ms = parse_time(since), None if until is None else parse_time(until)
    replay.check_times(from_ms, to_ms, int(time.time() * 1000))
    with stages() as progress:
        progress("Looking up offsets", 0, 1)
        work = replay.prepare(settings, from_ms, to_ms, app_id)
        progress("Looking up offsets", 1, 1)
        is_done = replay.run(work, lambda done, total: progress("Applying records", done, total))
    console.print(replay.what_next(work, is_done), soft_wrap=True, highlight=False)
    if not is_done:
        raise typer.Exit(130)


def _back_fill(file: Path, columns: str, types: str) -> None:
    from stream_app.back_fill import back_fill, what_next
    from stream_app.file_replay import parse_columns
    from stream_app.settings import Settings

    settings = Settings()
    with stages() as progress:
        report = back_fill(settings, file, progress, parse_columns(columns, types))
    console.print(what_next(settings, report), soft_wrap=True, highlight=False)
    if not report.is_done:
        raise typer.Exit(130)


def _send_file(file: Path, rate: float | None, columns: str, types: str, go_on: bool) -> None:
    from stream_app.file_replay import parse_columns, send_file, what_was_sent
    from stream_app.settings import Settings

    with stages() as progress:
        report = send_file(
            Settings(), file, parse_columns(columns, types), rate, go_on, progress=progress
        )
    console.print(what_was_sent(file, report), soft_wrap=True, highlight=False)
    if not report.is_done:
        raise typer.Exit(130)


@app.command("config")
def config_command(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show the settings in force and where they come from; secrets stay hidden."""
    from stream_app.settings import Settings
    from stream_app.settings_table import as_table, settings_table, to_json

    rows = settings_table(Settings())
    if as_json:
        typer.echo(to_json(rows))
    else:
        Console().print(as_table(rows), highlight=False)


@app.command("schemas")
def schemas_command(
    out: Annotated[Path, typer.Option(help="Directory to write to.")] = Path("deploy/schemas"),
) -> None:
    """Write the JSON Schemas of all messages."""
    from stream_app.schemas import export_schemas

    for path in export_schemas(out):
        console.print(str(path))


app.command("verify")(verify_command)
file_commands.register(app)
user_commands.register(app)


if __name__ == "__main__":
    main()
