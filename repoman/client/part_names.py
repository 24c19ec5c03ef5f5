"""The names of unfinished downloads, and which of them are there.

``TARGET@sha256-HEX.part`` says to where the bytes go and which bytes they will
be: what two versions, images, hypervisors or servers have is continued only
where it is the same.  No image's name has an ``@`` in it, and no target may be
called so.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from repoman.atomic_files import has_name, lock_existing

KEPT = 7 * 86400.0
"""Seconds after which nobody goes on with what came of another version."""

_ENDING = re.compile(r"@sha256-[0-9a-f]{64}\.part")

_MARK = re.compile(r"~[0-9a-f]{16}\Z")
"""At the end of what stands for a name that is too long; who is called so gets one, too."""

_LONGEST = 255
"""Bytes of a name in most file systems (NAME_MAX)."""


def is_part(name: str) -> bool:
    """Whether only an unfinished download can be called ``name``."""
    return bool(_ENDING.search(name[-len("@sha256-.part") - 64 :]))


def part_of(target: Path, sha256: str) -> Path:
    """Where the bytes with a SHA-256 (hex) are on their way to ``target``.

    :raises OSError: its directory is not there.
    """
    ending = f"@sha256-{sha256}.part"
    return target.with_name(_stem(target, _room_for_names(target.parent) - len(ending)) + ending)


def others(target: Path, part: Path) -> Iterator[Path]:
    """Our own unfinished downloads of other bytes to the same target."""
    stem = _ENDING.sub("", part.name)
    with os.scandir(target.parent) as found:
        for entry in found:
            its, ending = entry.name[: len(stem)], entry.name[len(stem) :]
            if its == stem and _ENDING.fullmatch(ending) and entry.name != part.name:
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                        yield target.with_name(entry.name)


def is_running(part: Path) -> bool:
    """Whether another process is writing an unfinished download."""
    try:
        os.close(lock_existing(part))
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def forget_old(part: Path) -> None:
    """Remove an unfinished download, if nobody has gone on with it for :data:`KEPT`."""
    with suppress(OSError):
        file = lock_existing(part)
        try:
            if os.fstat(file).st_mtime < time.time() - KEPT and has_name(file, part):
                part.unlink()
        finally:
            os.close(file)


def _room_for_names(directory: Path) -> int:
    return min(_LONGEST, os.pathconf(directory, "PC_NAME_MAX"))


def _stem(target: Path, room: int) -> str:
    """The target's name, or as much of it as fits, and what tells it from other long ones."""
    name = os.fsencode(target.name)
    if len(name) <= room and not _MARK.search(target.name):
        return target.name
    mark = f"~{hashlib.sha256(name).hexdigest()[:16]}"
    # Not within a character: some file systems take only whole ones.
    return name[: room - len(mark)].decode(errors="ignore") + mark
