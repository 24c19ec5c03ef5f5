"""What a backup says of itself: its last file, without which it is none."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from attrs import asdict, field, frozen

from repoman.config import Config
from repoman.database.saving import SavedBlob
from repoman.errors import Misconfigured

NAME, DUMP, BLOBS = "manifest.json", "database.dump", "blobs"
"""The parts of a backup."""

PIECE = 1 << 20
"""Bytes that are read at a time."""


@frozen
class Manifest:
    """A whole backup.

    :ivar made: when, RFC 3339.
    :ivar schema: the number of the newest migration.
    :ivar audit: the newest row, ``number:digest``.
    :ivar missing: files that were not what was stored when the backup was made.
    """

    repoman: str
    made: str
    repository_id: str
    schema: int
    audit: str
    dump_sha256: str
    blobs: tuple[SavedBlob, ...]
    missing: tuple[str, ...] = ()
    format: int = field(default=1)


def write(manifest: Manifest, directory: Path) -> None:
    """Make the backup in ``directory`` a whole one."""
    new = directory / (NAME + ".new")
    with new.open("w") as file:
        json.dump(asdict(manifest), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.rename(directory / NAME)
    sync(directory)


def read(directory: Path) -> Manifest:
    """What the backup in ``directory`` says of itself.

    :raises Misconfigured: it is no whole backup, or not one of this release's.
    """
    try:
        found = json.loads((directory / NAME).read_text())
        blobs = tuple(SavedBlob(**blob) for blob in found.pop("blobs"))
        manifest = Manifest(blobs=blobs, **{**found, "missing": tuple(found["missing"])})
    except FileNotFoundError:
        raise _refusal(directory, f"is no whole backup (no {NAME})") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _refusal(directory, f"is no backup that this release reads ({error})") from None
    if manifest.format != 1:
        raise _refusal(directory, f"is of the newer format {manifest.format}: use that release")
    return manifest


def digest(path: Path) -> str:
    """The SHA-256 of a file in hex."""
    running = hashlib.sha256()
    with path.open("rb") as file:
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


def place(root: Path, blob: str) -> Path:
    """Where a blob is, in a backup as in a store."""
    return root / "data" / blob[:2] / blob


def copy(source: Path, target: Path, blob: SavedBlob) -> bool:
    """Copy a file durably; answer whether it is what was stored, else leave no copy.

    :raises OSError: it cannot be read, or the copy not be written.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new, running, size = target.with_suffix(".new"), hashlib.sha256(), 0
    with source.open("rb") as coming, open(new, "wb", opener=_private) as going:
        while piece := coming.read(PIECE):
            running.update(piece)
            size += len(piece)
            going.write(piece)
        going.flush()
        os.fsync(going.fileno())
    right = size == blob.size and running.hexdigest() == blob.sha256
    if right:
        new.rename(target)
    else:
        new.unlink()
    return right


def sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _refusal(directory: Path, why: str) -> Misconfigured:
    return Misconfigured([f"{directory} {why}"])
