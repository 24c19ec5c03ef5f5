"""The parts of a multipart upload: how large they are, and how one is gathered."""

from __future__ import annotations

import hashlib

from attrs import frozen

from repoman.errors import NoRoom
from repoman.storage.s3.content import Content

MOST_PARTS = 10_000
"""How many parts an object has at most."""

LARGEST = 5 << 40
"""The largest object, in bytes."""

STEP, GROWTH = 1000, 1.5
"""Where the size is unknown, parts grow by so much after so many: to some 1.8 TiB with 16 MiB."""

MIB = 1 << 20


@frozen
class Part:
    """A part that the store has acknowledged.

    :ivar number: from 1.
    :ivar size: in bytes.
    """

    number: int
    etag: str
    size: int


def part_size(usual: int, number: int, offset: int, size: int | None) -> int:
    """How many bytes part ``number`` holds, which begins at ``offset``.

    :param size: of the whole; ``None`` if unknown.
    :raises NoRoom: the object would have too many parts.
    """
    left = MOST_PARTS + 1 - number
    if left <= 0 or offset >= LARGEST:
        raise _too_large()
    if size is None or size <= offset:
        return int(usual * GROWTH ** ((number - 1) // STEP))
    return max(usual, -(-(size - offset) // left // MIB) * MIB)


def last_number(usual: int, number: int, offset: int, size: int) -> int:
    """Which number the last part has, if part ``number`` begins at ``offset``."""
    while offset < size:
        offset += part_size(usual, number, offset, size)
        number += 1
    return number - 1


class Gathering:
    """Bytes that come together to a part, digested on the way.

    :param limit: in bytes; 0: there can be no such part.
    """

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._pieces: list[bytes] = []
        self._sha256 = hashlib.sha256()

    @property
    def is_full(self) -> bool:
        """It takes no more."""
        return self.size >= self._limit > 0

    def add(self, data: bytes) -> bytes:
        """Take what there is room for; answer the rest.

        :raises NoRoom: there can be no such part.
        """
        if data and not self._limit:
            raise _too_large()
        taken = data[: self._limit - self.size]
        self._pieces.append(taken)
        self._sha256.update(taken)
        self.size += len(taken)
        return data[len(taken) :]

    def content(self) -> Content:
        """All of it."""
        return Content(self._pieces, self.size, self._sha256.hexdigest())


def _too_large() -> NoRoom:
    return NoRoom("The object store takes no larger file in one piece.")
