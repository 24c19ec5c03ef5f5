"""Which parts of some bytes must be written into a file, so that its zeros become holes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

BLOCK = 4096
"""The size, in bytes, of what a file system keeps or leaves out."""

_ZEROS = bytes(BLOCK)


def dense(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """From where to where ``data`` must be written: the rest is blocks of zeros.

    The blocks are the file's, whatever the pieces are in which it comes: of a
    block that comes in two, a part of zeros is left out, too.

    :param at: the place of ``data`` in the file.
    """
    first, end = -at % BLOCK, len(data)
    # One look at how each block begins tells that most data has no block of zeros.
    if data[:1] != b"\0" and 0 not in data[first::BLOCK]:
        yield 0, end
        return
    begin = 0
    for start, stop in pairwise([0, *range(first or BLOCK, end, BLOCK), end]):
        if not data[start] and _ZEROS.startswith(data[start:stop]):
            if begin < start:
                yield begin, start
            begin = stop
    if begin < end:
        yield begin, end
