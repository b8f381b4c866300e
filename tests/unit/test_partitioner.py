"""The partitioner equals Kafka's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import murmur2

from stream_app.partitioner import partition_for, partitions_for


def kafkas(key: bytes, partitions: int) -> int:
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


@given(st.lists(st.binary(max_size=40)), st.integers(1, 10_000))
def test_equals_kafka_for_any_keys(keys: list[bytes], partitions: int) -> None:
    expected = [kafkas(key, partitions) for key in keys]

    assert partitions_for(keys, partitions).tolist() == expected
    if keys:  # so that they are many bytes, which are hashed together
        many = [bytes(200), *keys]
        assert partitions_for(many, partitions)[1:].tolist() == expected


def test_known_values() -> None:
    # From Kafka's own UtilsTest.testMurmur2, as unsigned: 21 -> -973932308, foobar -> -790332482.
    assert partition_for(b"21", 0x7FFFFFFF) == (-973932308 & 0x7FFFFFFF) % 0x7FFFFFFF
    assert partition_for(b"foobar", 1000) == (-790332482 & 0x7FFFFFFF) % 1000


def test_empty_and_very_long_keys() -> None:
    keys = [b"", b"x" * 1_000_001, b"", b"abcd"]

    assert partitions_for(keys, 8).tolist() == [kafkas(key, 8) for key in keys]


def test_no_keys() -> None:
    assert partitions_for([], 8).tolist() == []
