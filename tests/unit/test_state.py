"""The row's layout: its bytes are what the documentation of model/state.py says."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest

from model import state
from model.errors import StateError
from model.state import MAX_ROW_BYTES, new_rows, pack, row_dtype, unpack


def test_a_row_of_64_fits_and_every_field_is_aligned() -> None:
    dtype = row_dtype(64)
    assert dtype.itemsize <= MAX_ROW_BYTES
    assert dtype.itemsize % 8 == 0
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]
        assert offset % field.base.itemsize == 0, name


def test_the_documented_bytes_are_the_real_ones() -> None:
    table = re.findall(r"^(\w+(?:, \w+)?) +\S.*? {2,}(\d+)  \S", state.__doc__ or "", re.MULTILINE)
    documented = {names: int(size) for names, size in table}
    dtype = row_dtype(64)
    seen = set()
    for names, size in documented.items():
        fields = names.split(", ")
        seen.update(fields)
        assert sum(dtype[name].itemsize for name in fields) == size, names
    assert seen == set(dtype.names or ())
    assert sum(documented.values()) == dtype.itemsize


def test_pack_and_unpack_give_the_same_rows() -> None:
    rows = new_rows(3, 64)
    rows["events"] = [1, 2, 3]
    again = unpack([*pack(rows), None], 64)
    assert again[:3].tobytes() == rows.tobytes()
    assert again[3].tobytes() == new_rows(1, 64).tobytes()


@pytest.mark.parametrize("value", [b"", b"x", bytes(2031), bytes(2032), bytes(2048), bytes(9000)])
def test_bytes_that_are_no_row_are_refused(value: bytes) -> None:
    with pytest.raises(StateError, match="stored row"):
        unpack([value], 64)


def first_layout(row: bytes) -> bytes:
    """A row as version 1 stored it: shorter by what keeps a prediction."""
    dtype = row_dtype(64)
    assert dtype.fields is not None
    version, end = dtype.fields["version"][1], dtype.fields["window_due_s"][1]
    return row[:version] + struct.pack("<H", 1) + row[version + 2 : end]


def test_rows_of_version_1_are_read_and_keep_no_prediction() -> None:
    rows = new_rows(3, 64)
    rows["events"] = [7, 8, 9]
    rows["h"] = np.arange(64)
    older = first_layout(pack(rows)[1])
    assert len(older) == 2032
    newer = pack(rows)
    found = unpack([newer[0], older, None, newer[2]], 64)
    assert found[[0, 1, 3]].tobytes() == rows.tobytes()
    assert found["events"].tolist() == [7, 8, 0, 9]
    assert pack(found)[1] == newer[1]


def test_a_length_that_fits_two_layouts_is_told_by_the_version() -> None:
    """A row of version 1 is as long as one of version 2 whose hidden size is two less."""
    older = first_layout(pack(new_rows(1, 64))[0])
    newer = pack(new_rows(1, 62))[0]
    assert len(older) == len(newer)
    unpack([older], 64)
    unpack([newer], 62)
    for value, hidden in ((older, 62), (newer, 64)):
        with pytest.raises(StateError, match="layout other than versions 1 to 2"):
            unpack([value], hidden)


def test_a_hidden_size_that_needs_too_many_bytes_is_refused() -> None:
    with pytest.raises(StateError, match="smaller hidden size"):
        row_dtype(128)
