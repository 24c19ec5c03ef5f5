"""``restore``: a backup into an empty host."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from repoman import config
from repoman.atomic_files import sync_directory
from repoman.database.blobs import BlobRecords
from repoman.database.migrate import migrate, shipped
from repoman.database.saving import SavedBlob, is_empty, load, settle
from repoman.errors import Misconfigured
from repoman.operator import manifest
from repoman.operator.command import Command
from repoman.operator.database import Reached, with_database
from repoman.operator.manifest import Manifest
from repoman.storage.directory import DirectoryStore
from repoman.storage.operations import stamp


def restore(arguments: Namespace) -> int:
    """Bring the files back, each held against its digest, then the database."""
    source: Path = arguments.directory.absolute()
    settings, saved = config.load(arguments.config), manifest.read(source)
    manifest.check_backend(settings)
    _check(source, saved, settings.storage.directory)

    async def work(reached: Reached) -> int:
        try:
            return await _restore(reached, source, saved)
        except OSError as error:
            raise Misconfigured([f"{error.filename or source}: {error.strerror}"]) from None

    return with_database(settings, work, bare=True)


def _check(source: Path, saved: Manifest, store: Path) -> None:
    """Refuse what cannot end well, before anything is made."""
    if saved.schema > len(shipped()):
        raise Misconfigured(
            [f"{source} has tables of version {saved.schema}, this Repoman knows versions up to"
             f" {len(shipped())}: install {saved.repoman} or a later one"]
        )  # fmt: skip
    try:
        manifest.check_dump(source, saved)
        for blob in saved.blobs:
            with suppress(FileNotFoundError), _opened(source, blob):
                pass
    except OSError as error:
        raise Misconfigured([f"{error.filename or source}: {error.strerror}"]) from None
    known = store / "REPO_ID"
    if known.exists() and known.read_text().strip() != saved.repository_id:
        raise Misconfigured([f"{store} is another repository's: restore into an empty place"])


async def _restore(reached: Reached, source: Path, saved: Manifest) -> int:
    if not await is_empty(reached.pool):
        raise Misconfigured(["[database] dsn: the database is not empty: restore into a new one"])
    store = reached.config.storage.directory
    layout = DirectoryStore(reached.reactor, store, repository_id=saved.repository_id)
    await layout.start()
    await layout.stop()
    stamps, wrong = _copy_all(source, store, saved.blobs)
    if wrong:
        print(*(f"{blob} is not what was saved." for blob in wrong), sep="\n", file=sys.stderr)
    await load(reached.reactor, reached.pool, reached.dsn, source / manifest.DUMP)
    await migrate(reached.pool)
    await settle(reached.pool, stamps, source.name)
    blobs = BlobRecords(reached.pool)
    await blobs.expire_leases()
    lost = await blobs.mark_damaged(sorted(await blobs.present() - set(stamps)))
    print(f"The database and {len(stamps)} files are back, each as it was stored.")
    if lost:
        print(f"{lost} files are not in the backup: they are marked damaged.", file=sys.stderr)
    return 1 if wrong or lost else 0


def _copy_all(
    source: Path, store: Path, blobs: tuple[SavedBlob, ...]
) -> tuple[dict[str, str], list[str]]:
    """Bring every file over; answer the stamps of those that are right, and the others."""
    stamps, wrong = {}, []
    for blob in blobs:
        target = manifest.place(store, blob.blob)
        # One that is there has come from an attempt before, or was never lost.
        if _is_there(target, blob) or _brought(source, target, blob):
            stamps[blob.blob] = stamp(os.stat(target))
        else:
            wrong.append(blob.blob)
    for directory in sorted(store.glob("data/*/")):
        sync_directory(directory)
    return stamps, wrong


def _is_there(target: Path, blob: SavedBlob) -> bool:
    if not target.exists():
        return False
    with target.open("rb") as file:
        return manifest.digest(file) == blob.sha256


def _brought(source: Path, target: Path, blob: SavedBlob) -> bool:
    try:
        with _opened(source, blob) as file:
            return manifest.copy(file, target, blob)
    except FileNotFoundError:
        return False


def _opened(source: Path, blob: SavedBlob) -> AbstractContextManager[BinaryIO]:
    return manifest.opened(source, manifest.BLOBS, *manifest.names(blob.blob))


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="what backup has made")


RESTORE = Command(
    restore,
    "Bring a backup back: into an empty database, and a store that is empty or the same "
    "repository's.  Each file is held against its digest.  The daemon must not run.",
    _arguments,
)
