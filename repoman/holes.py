"""Which bytes of a flow need no room on a disk: a file system keeps a block of zeros as a hole.

Nothing may be in the file where they belong: what is not written there then reads as zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

BLOCK = 4096
"""Bytes of a file, from a multiple of it, that take room or take none: ext4's and XFS's usual."""

_ZEROS = bytes(1 << 18)


def dense(
    pieces: Iterable[bytes], offset: int
) -> Iterator[tuple[int, list[bytes | memoryview[int]]]]:
    """What of consecutive pieces has to be written, and at which offset.

    What is left out is zero.  A block whose bytes are all zero is left out whole, however
    it is divided among pieces; of a block that takes room the end or the beginning of a
    piece may be left out, so that no piece is copied and none waits for the next.

    :param offset: in the file, of the first piece.
    """
    run: list[bytes | memoryview[int]] = []
    begin = end = offset
    for piece in pieces:
        for start, stop in _stretches(piece, offset % BLOCK):
            if run and offset + start != end:
                yield begin, run
                run = []
            if not run:
                begin = offset + start
            run.append(piece if stop - start == len(piece) else memoryview(piece)[start:stop])
            end = offset + stop
        offset += len(piece)
    if run:
        yield begin, run


def _stretches(piece: bytes, phase: int) -> Sequence[tuple[int, int]]:
    """The parts of a piece between its zeros.

    :param phase: where in a block the piece begins.
    """
    head = min(-phase % BLOCK, len(piece))
    # One look at each block's first byte, all in one call: dense data cost next to nothing.
    firsts = piece[head::BLOCK]
    if 0 not in firsts and piece[:1] != b"\0":
        return ((0, len(piece)),) if piece else ()
    if _ZEROS.startswith(piece):
        return ()
    found, start = [], 0
    for zero, stop in _zeros(piece, head, firsts):
        if zero > start:
            found.append((start, zero))
        start = stop
    if start < len(piece):
        found.append((start, len(piece)))
    return found


def _zeros(piece: bytes, head: int, firsts: bytes) -> Iterator[tuple[int, int]]:
    """The parts of a piece that are zero, each the whole of what it has of one block.

    :param head: how much it has of the block in which it begins.
    :param firsts: the first byte of each other block.
    """
    if head and not piece[head - 1] and _ZEROS.startswith(piece[:head]):
        yield 0, head
    number = firsts.find(0)
    while number >= 0:
        start = head + number * BLOCK
        stop = min(start + BLOCK, len(piece))
        if not piece[stop - 1] and piece.startswith(_ZEROS[: stop - start], start):
            yield start, stop
        number = firsts.find(0, number + 1)
