"""Every internal of Faust, mode and aiokafka that the lane overrides or calls is still there.

When one moves, the sentence names it and the module of the lane that leans on it: read the new code
there before changing this list. What each is for stands in stream_app/lane/README.md.
"""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import version
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from faust.stores.rocksdb import Store
from mode.utils.objects import cached_property
from packaging.version import Version

from stream_app.events import RESERVED_KEY
from stream_app.lane.transport import LaneConsumer, LaneProducer


class Internal(NamedTuple):
    """A function, its parameters without self, and the module of ours that needs it."""

    path: str
    parameters: tuple[str, ...]
    needed_by: str


CONSUMER = "faust.transport.consumer:Consumer"
DRIVER = "faust.transport.drivers.aiokafka"
COORDINATOR = "aiokafka.consumer.group_coordinator:GroupCoordinator"
FETCHER = "aiokafka.consumer.fetcher:Fetcher"
CALL = ("fun", "args", "kwargs")
FUNCTIONS = [
    Internal(f"{CONSUMER}.getmany", ("timeout",), "transport.py"),
    Internal(f"{CONSUMER}._wait_next_records", ("timeout",), "transport.py"),
    Internal(f"{CONSUMER}._get_active_partitions", (), "transport.py"),
    Internal(f"{CONSUMER}.perform_seek", (), "transport.py"),
    Internal(f"{CONSUMER}.pause_partitions", ("tps",), "transport.py"),
    Internal(
        "faust.transport.consumer:ThreadDelegateConsumer.seek_wait", ("partitions",), "transport.py"
    ),
    Internal("mode.utils.queues:FlowControlEvent.is_active", (), "app.py"),
    Internal(f"{CONSUMER}.resume_partitions", ("tps",), "lane.py"),
    Internal(f"{CONSUMER}.commit", ("topics", "start_new_transaction"), "transport.py"),
    Internal(f"{CONSUMER}.maybe_wait_for_commit_to_finish", (), "transport.py"),
    Internal(f"{CONSUMER}._filter_tps_with_pending_acks", ("topics",), "transport.py"),
    Internal(f"{CONSUMER}._filter_committable_offsets", ("tps",), "transport.py"),
    Internal(f"{CONSUMER}._new_offset", ("tp",), "transport.py"),
    Internal(f"{CONSUMER}._should_commit", ("tp", "offset"), "transport.py"),
    Internal(f"{CONSUMER}._commit_offsets", ("offsets", "start_new_transaction"), "transport.py"),
    Internal(f"{CONSUMER}.on_partitions_revoked", ("revoked",), "transport.py"),
    Internal(f"{CONSUMER}.verify_event_path", ("now", "tp"), "transport.py"),
    Internal(f"{DRIVER}:Consumer._to_message", ("tp", "record"), "transport.py"),
    Internal(f"{DRIVER}:Consumer._new_consumer_thread", (), "transport.py"),
    Internal(f"{DRIVER}:Consumer.highwaters", ("partitions",), "transport.py"),
    Internal(f"{DRIVER}:Consumer.highwater", ("tp",), "transport.py"),
    Internal(f"{DRIVER}:Consumer.earliest_offsets", ("partitions",), "lane.py"),
    Internal(
        f"{DRIVER}:AIOKafkaConsumerThread._create_worker_consumer", ("transport",), "transport.py"
    ),
    Internal(
        f"{DRIVER}:AIOKafkaConsumerThread._fetch_records",
        ("consumer", "active_partitions", "timeout", "max_records"),
        "transport.py",
    ),
    Internal(
        "faust.transport.consumer:ThreadDelegateConsumer._getmany",
        ("active_partitions", "timeout"),
        "transport.py",
    ),
    Internal(f"{DRIVER}:Producer._settings_extra", (), "transport.py"),
    Internal(f"{DRIVER}:Producer.on_start", (), "transport.py"),
    Internal(f"{DRIVER}:Producer._ensure_producer", (), "lane.py"),
    Internal(f"{DRIVER}:AIOKafkaConsumerThread.on_start", (), "transport.py"),
    Internal(f"{DRIVER}:AIOKafkaConsumerThread.on_thread_stop", (), "transport.py"),
    Internal("faust.transport.consumer:ConsumerThread.call_thread", CALL, "transport.py"),
    Internal(f"{COORDINATOR}._do_heartbeat", (), "transport.py"),
    Internal(f"{COORDINATOR}.ensure_coordinator_known", (), "transport.py"),
    Internal(f"{FETCHER}._get_actions_per_node", ("assignment",), "transport.py"),
    Internal(f"{DRIVER}:server_list", ("urls", "default_port"), "topic_reader.py"),
    Internal(
        f"{DRIVER}:credentials_to_aiokafka_auth", ("credentials", "ssl_context"), "topic_reader.py"
    ),
    Internal("faust.transport.consumer:ensure_TP", ("tp",), "transport.py"),
    Internal("faust.app.base:App.on_rebalance_end", (), "worker.py"),
    Internal("faust.app.base:App.on_start", (), "worker.py"),
    Internal("faust.app.base:App.on_stop", (), "worker.py"),
    Internal("faust.app.base:App._stop_consumer", (), "worker.py"),
    Internal("faust.tables.recovery:Recovery.active_remaining_total", (), "lane.py"),
    Internal("faust.tables.recovery:Recovery.active_remaining", (), "recovery.py"),
    Internal("faust.tables.recovery:Recovery.on_recovery_completed", ("generation_id",), "lane.py"),
    Internal("faust.tables.base:Collection.apply_changelog_batch", ("batch",), "table.py"),
    Internal("faust.stores.rocksdb:Store._db_for_partition", ("partition",), "table.py"),
    Internal("faust.stores.rocksdb:Store.persisted_offset", ("tp",), "table.py"),
    Internal("faust.stores.rocksdb:Store.set_persisted_offset", ("tp", "offset"), "table.py"),
    Internal("faust.stores.rocksdb:RocksDBOptions.open", ("path", "read_only"), "table.py"),
    Internal("mode.worker:Worker._schedule_shutdown", ("signal",), "worker.py"),
    Internal("aiokafka:AIOKafkaProducer.create_batch", (), "sender.py"),
    Internal("aiokafka:AIOKafkaProducer.send_batch", ("batch", "topic", "partition"), "sender.py"),
    Internal("aiokafka:AIOKafkaProducer.partitions_for", ("topic",), "lane.py"),
    Internal(
        "aiokafka.producer.message_accumulator:BatchBuilder.append",
        ("timestamp", "key", "value", "headers"),
        "sender.py",
    ),
]


def find(path: str) -> Any:
    module, _, names = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return None
    return found


@pytest.mark.parametrize("internal", FUNCTIONS, ids=lambda internal: internal.path)
def test_is_still_there_with_its_parameters(internal: Internal) -> None:
    found = find(internal.path)
    advice = f"stream_app/{'lane/' * (internal.needed_by != 'worker.py')}{internal.needed_by}"
    if found is None:
        pytest.fail(f"{internal.path} is gone, and {advice} needs it.", pytrace=False)
    parameters = tuple(name for name in inspect.signature(found).parameters if name != "self")
    if parameters != internal.parameters:
        pytest.fail(
            f"{internal.path} takes {parameters} now and took {internal.parameters}; see {advice}.",
            pytrace=False,
        )


def test_the_pinned_faust_is_installed() -> None:
    installed = Version(version("faust-streaming"))
    assert Version("0.15.3") <= installed < Version("0.16"), (
        f"faust-streaming {installed} is installed, and the lane is written against 0.15; read "
        "stream_app/lane/README.md, and go through its list with the new code."
    )


def source_of(path: str) -> str:
    return inspect.getsource(find(path))


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        (
            f"{CONSUMER}.force_commit",
            "_filter_tps_with_pending_acks",
            "the lane names the partitions to commit there",
        ),
        (f"{CONSUMER}._filter_committable_offsets", "_new_offset", "the lane names offsets there"),
        (
            "faust.tables.recovery:Recovery.on_recovery_completed",
            "on_rebalance_end",
            "the lane begins an assignment there",
        ),
        (
            "faust.tables.recovery:Recovery._slurp_changelogs.fun",
            "self.in_recovery and not self.need_recovery()",
            "the lane's watch ends a recovery there",
        ),
        (
            "faust.tables.recovery:Recovery._slurp_changelogs.fun",
            "offset > seen_offset",
            "the offset of a poll there is that of its last record",
        ),
        (
            "faust.tables.recovery:Recovery._slurp_changelogs.fun",
            "len(buf) >= bufsize",
            "the worker bounds there how many polls wait for the store",
        ),
        (
            "faust.tables.recovery:Recovery._restart_recovery.fun",
            "recovery_buffer_size == 1",
            "the worker therefore sets another size",
        ),
        (
            "faust.tables.recovery:Recovery.flush_buffers",
            "table.apply_changelog_batch(buffer)",
            "what waits is written there before a recovery or an assignment ends",
        ),
        (
            "faust.tables.recovery:Recovery._seek_offsets",
            "offset = offsets[tp]",
            "the lane's table passes over the record that comes again",
        ),
        (
            "faust.tables.manager:TableManager.changelog_queue.fget",
            "clear_on_resume=True",
            "the app keeps it from being emptied while the flow goes on",
        ),
        (
            "faust.app.base:App._on_partitions_revoked",
            "self.flow_control.clear",
            "polls that wait under an assignment that ends are dropped there",
        ),
        (
            "mode.utils.queues:FlowControlEvent.resume",
            "self.clear()",
            "the app calls it only when the flow is suspended",
        ),
        (
            "faust.transport.consumer:Consumer._drain_messages",
            "callback(message), self.suspend_flow.wait()",
            "a poll that waits for the flow when its assignment ends is dropped there",
        ),
        (
            "faust.tables.recovery:Recovery._slurp_changelogs.fun",
            "except Exception as ex",
            "the lane's table ends the worker itself, as an error goes no further there",
        ),
        (
            "faust.tables.recovery:Recovery._build_offsets",
            "offset - 1",
            "the lane's table knows by that where the first poll may begin",
        ),
        (
            "faust.tables.base:Collection._new_changelog_topic",
            "schema=self.schema",
            "the schema of the table hands whole polls of its changelog on",
        ),
        (
            "faust.tables.recovery:Recovery.active_remaining",
            "highwater - offsets[tp]",
            "the lane's watch sets these offsets to the highwater",
        ),
        (
            "faust.tables.recovery:Recovery._set_recovery_started",
            "_recovery_started_at = ",
            "the lane's watch tells recoveries apart by that",
        ),
        (
            "faust.tables.recovery:Recovery._build_highwaters",
            "consumer.highwaters",
            "the lane gives recovery the true ends there",
        ),
        ("faust.app.base:App.on_stop", "_stop_consumer", "the lane commits before that"),
        (
            f"{COORDINATOR}._heartbeat_routine",
            "self._do_heartbeat()",
            "the lane's lease is renewed there",
        ),
        (
            f"{COORDINATOR}._do_heartbeat",
            "self.request_rejoin()",
            "the lane tells a rebalance by that",
        ),
        (
            f"{COORDINATOR}._push_error_to_user",
            "self._pending_exception = ",
            "the lane looks there for what keeps it out of the group",
        ),
        (f"{COORDINATOR}.request_rejoin", "_rejoin_needed_fut", "the lane looks at that future"),
        (
            f"{COORDINATOR}._maybe_leave_group",
            "self.generation > 0",
            "the lane sets the generation for that",
        ),
        (
            f"{FETCHER}._fetch_requests_routine",
            ") = self._get_actions_per_node(assignment)",
            "the lane paces the fetches there",
        ),
        (
            f"{FETCHER}._get_actions_per_node",
            """(
            fetch_requests,
            awaiting_reset,
            backoff,""",
            "the lane leaves fetches out of the first, and shortens the third",
        ),
        (f"{CONSUMER}.perform_seek", "_committed_offset", "the lane reads where it begins there"),
        (
            "faust.stores.rocksdb:Store.set_persisted_offset",
            "str(offset).encode()",
            "the lane writes the changelog offset in this form",
        ),
    ],
)
def test_still_works_as_the_lane_expects(path: str, text: str, why: str) -> None:
    if text not in source_of(path):
        pytest.fail(f"{path} has no {text!r} any more, and {why}.", pytrace=False)


def test_the_key_of_the_persisted_offset_is_the_same() -> None:
    assert Store.offset_key == RESERVED_KEY


def test_attributes_that_are_set_from_outside_exist() -> None:
    state = inspect.getsource(find("aiokafka.consumer.subscription_state:TopicPartitionState"))
    assert "self._position = " in state
    assert "_fetch_max_wait_ms" in inspect.getsource(AIOKafkaConsumer.__init__)
    assert "max_batch_size" in inspect.signature(AIOKafkaProducer.__init__).parameters
    for name in ("_committed_offset", "_buffered_partitions", "flow_active"):
        assert f"self.{name}" in inspect.getsource(inspect.getmodule(LaneConsumer.__mro__[3])), name
    assert isinstance(find("faust.tables.manager:TableManager").changelog_queue, property)
    assert isinstance(find("faust.app.base:App").flow_control, cached_property)
    sizes = {"recovery_buffer_size", "standby_buffer_size"}
    assert (
        sizes <= inspect.signature(find("faust.tables.base:Collection").__init__).parameters.keys()
    )
    assert "_producer" in inspect.getsource(LaneProducer.__mro__[1])
    sender = inspect.getsource(find("aiokafka.producer.sender:Sender"))
    assert "ignore_nodes=self._in_flight" in sender
    assert "self._in_flight.add(node_id)" in sender
    assert "self._in_flight.remove(node_id)" in sender
