"""The files of a CA directory: which of them count, and what is in them.

A file that cannot be read, waits for a writer or has no end costs no more than itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from attrs import frozen

from repoman.errors import TrustUnreadable

LAYOUT: Final = re.compile(r"[^.].*\.(?:[0-9]+|r[0-9]+|signing_policy|namespaces)")
"""What belongs to the layout; anything else in the directory is not looked at.

Nor is what begins with a dot: Kubernetes keeps directories like ``..2026_11_27_10_00.123`` there.
"""

CERTIFICATES: Final = re.compile(r"[^.].*\.[0-9]+")
"""The certificates alone."""

LARGEST: Final = 2**24
"""The largest file that is read, in bytes.

A CRL of 400,000 entries; larger ones would keep the daemon from serving for seconds.
"""


@frozen
class File:
    """A file of the directory.

    :ivar fault: why it could not be read; empty if it could.
    """

    name: str
    content: bytes = b""
    fault: str = ""

    def is_a(self, kind: str) -> bool:
        """The name ends so: a regular expression for ``0``, ``r0``, ``namespaces``."""
        return re.fullmatch(rf".+\.(?:{kind})", self.name) is not None


def stem(name: str) -> str:
    """The hash, or whatever ties the files of one CA together."""
    return name.rpartition(".")[0]


def read_files(directory: Path, wanted: re.Pattern[str] = LAYOUT) -> list[File]:
    """Read the files of the layout, in the order of their names.

    :param wanted: the names.
    :raises TrustUnreadable: there is no such directory, or it is closed to us.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if wanted.fullmatch(shown(name)))
    except OSError as error:
        raise TrustUnreadable(
            f"The CA directory {directory} cannot be read ({error.strerror}): install your grid's"
            " CA certificates there, or name another directory."
        ) from None
    return [file for name in names if (file := _read(directory / name))]


def fingerprint(paths: Iterable[Path]) -> frozenset[tuple[str, int, int, int]]:
    """What tells whether files, or those in a directory, were replaced or changed."""
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            for entry in path.iterdir() if path.is_dir() else [path]:
                found.add(_state(entry))
    return frozenset(found)


def _state(path: Path) -> tuple[str, int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino


def shown(text: str) -> str:
    """A file's name or words of it, in one line that no log chokes on."""
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def _read(path: Path) -> File | None:
    """Read a file; ``None`` for a directory, which is none."""
    name = shown(path.name)
    try:
        # Looked at first: to open a device may do something, and a FIFO waits for a writer.
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            return None
        if not stat.S_ISREG(kind):
            return File(name, fault="is no ordinary file")
        with open(path, "rb", opener=_open_at_once) as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        return File(name, fault=f"cannot be read ({error.strerror})")
    if len(content) > LARGEST:
        return File(name, fault=f"is larger than {LARGEST >> 20} MiB")
    return File(name, content)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
