"""What a backup says of itself: its last file, without which it is none.

What it says is believed as far as it goes: names are keys of blobs and lead
nowhere else, and no link in a backup is followed.  But a dump is a program for
the database, so that what others could have changed is no backup at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from attrs import Attribute, asdict, field, frozen
from attrs.validators import deep_iterable, ge, in_, instance_of, matches_re

from repoman.atomic_files import atomic_file, has_name, locked_anew, take_name
from repoman.config import Config
from repoman.database.saving import KEY, SHA256, SavedBlob
from repoman.errors import Misconfigured
from repoman.holes import dense

NAME, DUMP, BLOBS = "manifest.json", "database.dump", "blobs"
"""The parts of a backup."""

PIECE = 1 << 20
"""Bytes that are read at a time."""

LIMIT = 1 << 30
"""The longest manifest, in bytes: of some five million files."""


@frozen
class Manifest:
    """A whole backup.

    :ivar made: when, RFC 3339.
    :ivar schema: the number of the newest migration.
    :ivar audit: the newest row, ``number:digest``.
    :ivar missing: files that were not what was stored when the backup was made.
    """

    repoman: str = field(validator=matches_re(r"[ -~]{1,100}"))
    made: str = field(validator=instance_of(str))
    repository_id: str = field(validator=matches_re(KEY))
    schema: int = field(validator=[instance_of(int), ge(1)])
    audit: str = field(validator=instance_of(str))
    dump_sha256: str = field(validator=matches_re(SHA256))
    blobs: tuple[SavedBlob, ...]
    missing: tuple[str, ...] = field(default=(), validator=deep_iterable(matches_re(KEY)))
    format: int = field(default=1, validator=in_((1,)))


def write(manifest: Manifest, directory: Path) -> None:
    """Make the backup in ``directory`` a whole one."""
    with atomic_file(directory / NAME, 0o600) as file:
        file.write(json.dumps(asdict(manifest), indent=1).encode())


def read(directory: Path) -> Manifest:
    """What the backup in ``directory`` says of itself.

    :raises Misconfigured: it is no whole backup, or not one of this release's,
        or others could have changed it.
    """
    try:
        _check_rule(directory, directory.stat())
        with opened(directory, NAME) as file:
            _check_rule(directory / NAME, os.fstat(file.fileno()))
            text = file.read(LIMIT + 1)
    except FileNotFoundError:
        raise _refusal(directory, f"is no whole backup (no {NAME})") from None
    except OSError as error:
        raise _refusal(Path(error.filename or directory), f"{error.strerror}") from None
    if len(text) > LIMIT:
        raise _refusal(directory, f"is no backup ({NAME} is longer than {LIMIT} bytes)")
    return _understood(directory, text)


def _understood(directory: Path, text: bytes) -> Manifest:
    try:
        found = json.loads(text)
        if isinstance(found["format"], int) and found["format"] > 1:
            raise _refusal(directory, f"is of the newer format {found['format']}: use that release")
        blobs = tuple(SavedBlob(**blob) for blob in found.pop("blobs"))
        manifest = Manifest(blobs=blobs, **{**found, "missing": tuple(found["missing"])})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        field = next((arg.name for arg in error.args if isinstance(arg, Attribute)), NAME)
        raise _refusal(
            directory, f"is no backup that this release reads ({field} is not what backup writes)"
        ) from None
    if len({blob.blob for blob in blobs}) < len(blobs):
        raise _refusal(directory, f"is no backup ({NAME} names a file twice)")
    return manifest


@contextmanager
def opened(root: Path, *names: str) -> Iterator[BinaryIO]:
    """Open a file below a directory, through no link below it.

    :raises FileNotFoundError: there is none.
    :raises OSError: it cannot be read, is no regular file, or lies behind a link.
    """
    path = str(root.joinpath(*names))
    try:
        descriptor = _below(root, names)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file, which a backup is made of", path)
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _below(root: Path, names: tuple[str, ...]) -> int:
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for number, name in enumerate(names, 1):
        # O_NONBLOCK: not to wait for the writer of a FIFO.
        how = os.O_NONBLOCK if number == len(names) else os.O_DIRECTORY
        try:
            inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | how, dir_fd=at)
        finally:
            os.close(at)
        at = inner
    return at


def _check_rule(path: Path, found: os.stat_result) -> None:
    """Refuse what others could have changed: what a dump says is done in the database.

    :raises Misconfigured: they could.
    """
    if found.st_uid not in (0, os.geteuid()):
        raise _refusal(
            path, f"belongs to uid {found.st_uid}, who could have changed what is restored: if"
            " it is what you saved, give it to yourself (chown -R)",
        )  # fmt: skip
    if found.st_mode & 0o022:
        raise _refusal(
            path, "can be written by others, who could have changed what is restored: if it is"
            " what you saved, run chmod -R go-w on it",
        )  # fmt: skip


def check_dump(directory: Path, manifest: Manifest) -> None:
    """Hold the dump of a backup against its digest.

    :raises Misconfigured: it is not what was saved, or others could have changed it.
    :raises OSError: it cannot be read.
    """
    with opened(directory, DUMP) as file:
        _check_rule(directory / DUMP, os.fstat(file.fileno()))
        if digest(file) != manifest.dump_sha256:
            raise _refusal(directory / DUMP, "is not what was saved: use another backup")


def digest(file: BinaryIO) -> str:
    """The SHA-256 of a file in hex."""
    running = hashlib.sha256()
    while piece := file.read(PIECE):
        running.update(piece)
    return running.hexdigest()


def check_backend(config: Config) -> None:
    """Files are saved from a directory and restored into one, nowhere else.

    :raises Misconfigured: the configuration names another kind of store.
    """
    if config.storage.backend != "directory":
        raise Misconfigured(
            ["[storage] backend: only a directory can be saved and restored; save an object store"
             " by its own means, and the database by pg_dump before that"]
        )  # fmt: skip


def names(blob: str) -> tuple[str, str, str]:
    """Where a blob is, in a backup's ``blobs`` as in a store: directories, and the file's name."""
    return "data", blob[:2], blob


def place(root: Path, blob: str) -> Path:
    """Where a blob is, below ``root``."""
    return root.joinpath(*names(blob))


def copy(coming: BinaryIO, target: Path, blob: SavedBlob) -> bool:
    """Copy a file durably, holes for zeros; return whether it is what was stored, else leave none.

    :raises Conflict: another process copies it.
    :raises OSError: it cannot be read, or the copy not be written.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # One name for all runs: what a killed one leaves does not stay for ever.
    new, running, size = target.with_name(target.name + "@new"), hashlib.sha256(), 0
    with locked_anew(new) as file, os.fdopen(file, "wb", closefd=False) as going:
        while piece := coming.read(PIECE):
            running.update(piece)
            for offset, parts in dense([piece], size):
                going.seek(offset)
                going.writelines(parts)
            size += len(piece)
        going.truncate(size)  # a hole at the end has not made it longer yet
        os.fsync(file)
        right = size == blob.size and running.hexdigest() == blob.sha256
        if right:
            take_name(file, new, target)
        elif has_name(file, new):
            new.unlink()
    return right


def made_anew(path: Path) -> BinaryIO:
    """A new file that nobody else may read, whatever the umask or the directory's lists say."""
    path.unlink(missing_ok=True)
    return open(path, "xb", opener=_private)  # through no link


def _private(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _refusal(path: Path, why: str) -> Misconfigured:
    return Misconfigured([f"{path} {why}"])
