"""Blocks of zeros are left out, and nothing else is, however the bytes are divided."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repoman.holes import BLOCK, dense

STRETCH = st.tuples(st.sampled_from([b"\0", b"x", b"\0x"]), st.integers(0, 3 * BLOCK))
PIECE = st.lists(STRETCH, max_size=4).map(lambda parts: b"".join(b * n for b, n in parts))
PIECES = st.lists(PIECE, max_size=6)
OFFSET = st.one_of(st.integers(0, 3 * BLOCK), st.just(BLOCK), st.just((1 << 40) + 1))


def blocks(start: int, stop: int) -> range:
    """The blocks of a file that a stretch has bytes in."""
    return range(start // BLOCK, -(-stop // BLOCK))


@given(PIECES, OFFSET)
def test_what_is_left_out_is_zero_and_the_rest_lies_where_it_belongs(
    pieces: list[bytes], offset: int
) -> None:
    whole = b"".join(pieces)
    found, last = bytearray(len(whole)), offset
    for at, run in dense(pieces, offset):
        data = b"".join(run)
        assert data
        assert at >= last
        last = at + len(data)
        found[at - offset : last - offset] = data
    assert bytes(found) == whole


@given(PIECES, OFFSET)
def test_no_block_of_zeros_takes_room(pieces: list[bytes], offset: int) -> None:
    whole = b"".join(pieces)
    touched: set[int] = set()
    for at, run in dense(pieces, offset):
        touched.update(blocks(at, at + sum(map(len, run))))
    for block in touched:
        begin = max(0, block * BLOCK - offset)
        assert any(whole[begin : (block + 1) * BLOCK - offset])


@pytest.mark.parametrize("offset", [0, 1, BLOCK, BLOCK + 1000])
def test_dense_bytes_are_written_as_they_came_in_one_run(offset: int) -> None:
    pieces = [os.urandom(16384).replace(b"\0", b"x") for _ in range(16)]
    [(at, run)] = dense(pieces, offset)
    assert at == offset
    assert all(one is piece for one, piece in zip(run, pieces, strict=True))
