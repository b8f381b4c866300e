"""Commands about one user: what is known, and its erasure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import msgspec
import typer
from rich.table import Table

from stream_app.errors import UsageError, WorkerError
from stream_app.settings import Settings
from stream_app.terminal import console, plain, stages
from stream_app.worker_http import ask, no_worker, worker_url

if TYPE_CHECKING:
    from stream_app.answers import Inspection

ASK_TIMEOUT_S = 10.0

UserArgument = Annotated[str, typer.Argument(help="The user id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command("inspect")(inspect_command)
    app.command("erase")(erase_command)


def inspect_command(
    user: UserArgument,
    as_json: JsonOption = False,
    url: Annotated[str | None, typer.Option(help="A worker; any one will do.")] = None,
) -> None:
    """Show what is known of a user, asked from a running worker."""
    from stream_app.answers import Inspection

    settings = Settings()
    token = settings.http_access()
    if token is None:
        raise UsageError(
            "User data asks for a token; set INTEREST_HTTP_TOKEN_FILE to the file that the workers "
            "have."
        )
    address = worker_url(
        url or settings.http_url or f"http://{settings.http_host}:{settings.http_port}"
    )
    body = ask(f"{address}/users/{quote(_checked(user), safe='')}", token, ASK_TIMEOUT_S)
    try:
        found = msgspec.json.decode(body, type=Inspection)
    except msgspec.MsgspecError:
        raise no_worker(address) from None
    if as_json:
        typer.echo(body.decode())
    else:
        _show(found)


def erase_command(
    user: UserArgument,
    as_json: JsonOption = False,
    timeout: Annotated[
        float, typer.Option(min=1, max=86_400, help="Seconds to wait for the worker.")
    ] = 60.0,
) -> None:
    """Erase what is known of a user, through the worker that owns the partition."""
    from stream_app.erasing import erase_user

    with stages() as progress:
        erased = erase_user(
            Settings(),
            _checked(user),
            timeout,
            lambda seconds: progress("Waiting for the worker", int(seconds), int(timeout)),
        )
    if as_json:
        typer.echo(msgspec.json.encode(erased).decode())
    else:
        receipt = erased.receipt
        done = {
            True: "The row is erased",
            False: "There was no row",
            None: "The row is erased, if there was one",
        }[receipt.had_row]
        at = "" if receipt.marker is None else f"; the marker stands at {_at(receipt.marker)}"
        console.print(f"{done}{at}.", soft_wrap=True, highlight=False)
        console.print(f"{erased.dead_letters} dead letters about the user are deleted.")
        for topic, offset in receipt.inputs.items():
            console.print(
                f"Events in {topic} partition {receipt.partition} below offset {offset} are "
                "skipped from now on.",
                soft_wrap=True,
                highlight=False,
            )
        table = Table("topic", "records left", "found again", "until", title="What brokers hold")
        for held in erased.held:
            table.add_row(
                held.topic, str(held.records), "yes" if held.current else "no", held.until
            )
        console.print(table)
    if not erased.is_gone:
        raise WorkerError(
            "A topic still has a current value of the user, see above; another event of the user "
            "may have come meanwhile: erase again."
        )


def _checked(user: str) -> str:
    try:
        user.encode()
    except UnicodeEncodeError:
        raise UsageError("The user id is no UTF-8; give it as the events have it.") from None
    return user


def _at(place: object) -> str:
    topic, partition, offset = (
        getattr(place, name, "-") for name in ("topic", "partition", "offset")
    )
    return f"{topic} partition {partition} offset {offset}"


def _show(found: Inspection) -> None:
    say = console.print
    say(f"[bold]{plain(found.user_id)}[/] in partition {found.partition}", highlight=False)
    if found.erased:
        say("Was erased; what follows came afterwards." if found.stored else "Was erased.")
    if not found.stored:
        return
    say(f"{found.events} events, {found.steps} steps; the last at {found.last_event}")
    if not found.row_checkpoint:
        say("The row is of another checkpoint's weights: it starts anew at the next event.")
    statistic = (
        "not enough events yet"
        if found.drift_statistic is None
        else (f"statistic {found.drift_statistic:.2f}")
    )
    say(
        f"Drift: {statistic}, alarm at {found.drift_threshold:.2f}; {found.drifts} alarms so far"
        + (f", the last at {found.last_drift}" if found.last_drift else "")
    )
    interests = Table(
        "category", "probability", "90 % interval", "uncertainty (bits)", title="Interests"
    )
    for one in found.interests:
        interests.add_row(
            plain(one.category),
            f"{one.probability:.3f}",
            f"{one.low:.3f} to {one.high:.3f}",
            f"{one.uncertainty:.3f}",
        )
    items = Table("item", "score", "reason", title="Suggested items")
    for item in found.items:
        items.add_row(plain(item.item_id), f"{item.score:.2f}", plain(item.reason.text))
    recent = Table("time", "kind", "item", "category", title="Last steps")
    for step in found.recent:
        recent.add_row(step.time, step.kind, plain(step.item_id), plain(step.category))
    offsets = Table("topic", "last applied offset", title=f"Offsets; model {found.model_version}")
    for topic, offset in found.offsets.items():
        offsets.add_row(topic, "none" if offset is None else str(offset))
    for table in (interests, items, recent, offsets):
        say(table)
