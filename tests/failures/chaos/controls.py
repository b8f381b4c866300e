"""Users who are erased and rows that expire, by workers that are killed in the middle of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from model.events import EventType
from stream_app.cloud_events import data_in
from stream_app.control import Erase, decode_receipt, encode
from stream_app.erasing import held
from stream_app.lane.commit import STEPS
from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from stream_app.verify import verify
from tests.failures.chaos.counts import stored_by_user
from tests.failures.chaos.invariants import HIDDEN_TOLERANCE, Figures, dead_letter_places
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.load import CLIENT_ID, START_MS, Message
from tests.failures.chaos.refusals import require_kill
from tests.failures.chaos.run import Run

EVENTS = 1500
SMALL_BATCH = 20
DAY_MS = 86_400_000
TTL_DAYS = 3
GENERATION = 400
RETURNING = 50


@scenario("erasure under kill -9 at each step", settles=False, kills=True)
def erasure(run: Run) -> None:
    """Killed in each step of erasures: the users are gone, also after a replay of the inputs."""
    worker = run.worker()
    run.load.send(EVENTS)
    run.wait_until(run.is_settled, "all is applied")
    worker.kill()
    whens = ("before", "after") if run.long else ("after",)
    asked: list[str] = []
    for number, step in enumerate(f"{when} {step}" for step in STEPS for when in whens):
        asked += _erase(run, number)
        require_kill(run, run.worker(fault=("kill", step, "1"), ready=False), step)
        run.note()
    back, gone = asked[:4], asked[4:]
    run.worker()
    run.wait_until(lambda: _answered(run) >= set(asked), "all requests have a receipt")
    run.load.send_messages(run.load.message(EventType.CLICK, user) for user in back)
    run.load.send(EVENTS, users="other")
    run.settle()
    run.stop_workers()
    _require_gone(run, gone)

    admin = KafkaAdminClient(**run.settings.kafka_python())
    admin.delete_groups([run.settings.app_id])
    admin.close()
    run.worker("replayed")
    run.wait_until(lambda: bool(run.committed()) and run.is_settled(), "the inputs are replayed")
    run.stop_workers()
    _require_gone(run, gone)
    run.figures = _check_exact(run)


@scenario("expiry under kill -9", settles=False, kills=True)
def expiry(run: Run) -> None:
    """Killed before and after expired rows go: they are gone, and come back as new users."""
    run.settings = run.settings.model_copy(update={"state_ttl": f"{TTL_DAYS}d"})
    run.overrides |= {"state_ttl": f"{TTL_DAYS}d", "max_batch_events": SMALL_BATCH}
    last = 30 if run.long else TTL_DAYS + 3
    for day in range(last):
        run.load.send_messages(_on_day(run, day))
        if day > TTL_DAYS:
            step = ("after expiry", "before expiry")[day % 2]
            require_kill(run, run.worker(fault=("kill", step, "1"), ready=False), step)
            run.note()
        if TTL_DAYS <= day < last - 1:  # so that the next one finds nothing left to delete
            worker = run.worker()
            run.wait_until(run.is_settled, "all is applied")
            worker.kill()
    run.load.send_messages(_on_day(run, last))
    run.worker()
    run.wait_until(run.is_settled, "all is applied")
    days = tuple(f"day-{day}-" for day in range(last - TTL_DAYS - 1))
    run.wait_until(lambda: not _there(run, days), "all rows that have expired are deleted")
    run.stop_workers()
    run.figures = _check_exact(run)


def _erase(run: Run, number: int) -> list[str]:
    """Ask for the erasure of some users, one of each partition at least; their names."""
    users = [f"user-{user}" for user in range(20 * number, 20 * number + 20)]
    producer = KafkaProducer(**run.settings.kafka_python(), client_id=CLIENT_ID)
    for user in users:
        request = Erase(request_id=user, user_id=user, requested_ms=START_MS)
        place = partition_for(user.encode(), run.settings.partitions)
        key = user.encode()
        producer.send(run.settings.control_topic, encode(request), key, partition=place)
    producer.flush()
    producer.close()
    return users


def _answered(run: Run) -> set[str]:
    """The requests that have a receipt."""
    receipts = [
        decode_receipt(record.headers)
        for partition in range(run.settings.partitions)
        for record in read_records(run.settings, run.settings.control_topic, partition)
    ]
    return {receipt.request_id for receipt in receipts if receipt is not None}


def _on_day(run: Run, day: int) -> Iterator[Message]:
    """Events of one day, of its own users and of some whose rows have just expired."""
    long_ago = day - TTL_DAYS - 1
    for number, message in enumerate(run.load.messages(GENERATION, users=f"day-{day}")):
        time_ms = START_MS + day * DAY_MS + number
        user = (message.key or b"").decode()
        if long_ago >= 0 and number % 4 == 0:
            user = f"day-{long_ago}-{number // 4 % RETURNING}"
        yield run.load.message(message.event_type, user, timestamp=time_ms)


def _there(run: Run, days: tuple[str, ...]) -> list[str]:
    """Users of some days who have a row, but for those who have come back."""
    users = [user for user in stored_by_user(run) if user.startswith(days)]
    return [user for user in users if int(user.rpartition("-")[2]) >= RETURNING]


def _require_gone(run: Run, users: list[str]) -> None:
    stored = stored_by_user(run)
    left = [user for user in users if user in stored]
    run.require(not left, f"{len(left)} erased users have a row, the first is {left[:1]}")
    for user in users[:: max(1, len(users) // 8)]:
        current = [one.topic for one in held(run.settings, user) if one.current]
        run.require(not current, f"{user} is erased and stands in {current}")


def _check_exact(run: Run) -> Figures:
    """Rows and outputs against the offline run, which knows of erasures and expiry."""
    found, offline = verify(run.settings, run.checkpoint)
    seen: dict[str, list[bytes]] = {}
    for topic in (run.settings.drift_topic, run.settings.recommendations_topic):
        for partition in range(run.settings.partitions):
            for record in read_records(run.settings, topic, partition):
                if record.value is not None:
                    value = data_in(record.headers, record.value)
                    seen.setdefault(json.loads(value)["id"], []).append(value)
    figures = Figures(
        events=run.load.count,
        applied=offline.events - offline.duplicates,
        repeats=offline.duplicates,
        dead=sum(map(len, dead_letter_places(run.settings).values())),
        lost=len(offline.outputs.keys() - seen.keys()),
    )
    wrong = {
        "rows differ from the offline run": found.differing,
        "outputs are missing": offline.outputs.keys() - seen.keys(),
        "outputs are not of the offline run": seen.keys() - offline.outputs.keys(),
        "outputs differ from the offline run": [
            name
            for name, value in offline.outputs.items()
            if any(json.loads(one) != json.loads(value) for one in seen.get(name, []))
        ],
    }
    figures.broken += [f"{len(n)} {what}, the first {min(n)}" for what, n in wrong.items() if n]
    if found.hidden_difference > HIDDEN_TOLERANCE:
        figures.broken.append(f"hidden states differ by {found.hidden_difference:.4f}")
    if figures.applied + figures.dead != figures.events or figures.dead:
        figures.broken.append(f"{figures.applied} applied of {figures.events} produced")
    return figures
