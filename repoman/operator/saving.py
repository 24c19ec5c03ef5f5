"""``backup``: database and files as they belong together, while the daemon runs."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from datetime import datetime, timezone
from pathlib import Path

from repoman import __version__, config
from repoman.atomic_files import sync_directory
from repoman.database.audit import AuditRecords
from repoman.database.blobs import BlobRecords
from repoman.database.migrate import shipped
from repoman.database.pool import Transaction
from repoman.database.saving import SavedBlob, dump, keep_files, saved_blobs
from repoman.errors import Misconfigured
from repoman.operator import manifest
from repoman.operator.command import Command
from repoman.operator.database import Reached, with_database
from repoman.operator.manifest import Manifest


def backup(arguments: Namespace) -> int:
    """Save the database, then every file that it names."""
    target: Path = arguments.directory.absolute()
    earlier: Path | None = arguments.since and arguments.since.absolute()
    if earlier is not None:
        manifest.read(earlier)

    async def work(reached: Reached) -> int:
        try:
            return await _save(reached, target, earlier)
        except OSError as error:
            raise Misconfigured([f"{error.filename or target}: {error.strerror}"]) from None

    settings = config.load(arguments.config)
    manifest.check_backend(settings)
    return with_database(settings, work)


async def _save(reached: Reached, target: Path, earlier: Path | None) -> int:
    _take(target)
    repository_id = await BlobRecords(reached.pool).repository_id()
    _, newest = await AuditRecords(reached.pool).ends()

    async def hold(transaction: Transaction) -> tuple[list[SavedBlob], list[str]]:
        await keep_files(transaction)
        # For pg_dump, which would make it as open as the umask says.
        manifest.made_anew(target / manifest.DUMP).close()
        # The database first: then each file that the dump names is still there.
        await dump(reached.reactor, transaction, reached.dsn, target / manifest.DUMP)
        blobs = await saved_blobs(transaction)
        return _copy_all(reached.config.storage.directory, target, earlier, blobs)

    saved, missing = await reached.pool.interact(hold)
    with manifest.opened(target, manifest.DUMP) as file:
        dump_sha256 = manifest.digest(file)
    made = Manifest(
        repoman=__version__,
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        repository_id=repository_id,
        schema=len(shipped()),
        audit=f"{newest.number}:{newest.digest}",
        dump_sha256=dump_sha256,
        blobs=tuple(saved),
        missing=tuple(missing),
    )
    manifest.write(made, target)
    size = sum(blob.size for blob in saved)
    print(f"{target}: the database and {len(saved)} files of {size} bytes, each as it was stored.")
    for blob in missing:
        print(f"{blob} is missing or not what was stored, and not saved.", file=sys.stderr)
    return 1 if missing else 0


def _take(target: Path) -> None:
    """Make a directory for the backup, or take an empty one, for ourselves alone.

    :raises Misconfigured: it is not empty, or another account's.
    """
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = target.stat().st_uid
    if any(target.iterdir()):
        raise Misconfigured([f"{target} is not empty: name a new directory"])
    if owner != os.geteuid():
        raise Misconfigured(
            [f"{target} belongs to uid {owner}, who could read and change the backup: name a new"
             " directory"]
        )  # fmt: skip
    target.chmod(0o700)
    # One by one: pathlib makes parents as open as the umask says.
    for inner in (manifest.BLOBS, f"{manifest.BLOBS}/data"):
        (target / inner).mkdir(mode=0o700)


def _copy_all(
    store: Path, target: Path, earlier: Path | None, blobs: list[SavedBlob]
) -> tuple[list[SavedBlob], list[str]]:
    """Bring every file over; answer those that are saved, and those that are not what was stored.

    What was about to be removed is saved if it is still there.
    """
    saved, missing = [], []
    for blob in blobs:
        if (earlier and _link(earlier, target, blob)) or _copy(store, target, blob):
            saved.append(blob)
        elif blob.needed:
            missing.append(blob.blob)
    for directory in sorted((target / manifest.BLOBS).glob("**/"), reverse=True):
        sync_directory(directory)
    sync_directory(target)
    return saved, missing


def _link(earlier: Path, target: Path, blob: SavedBlob) -> bool:
    # Not to the store: a new link changes a file's ctime, and with it the stamp by which the
    # store knows that nobody touched it.
    names = manifest.names(blob.blob)
    new = manifest.place(target / manifest.BLOBS, blob.blob)
    try:
        with manifest.opened(earlier, manifest.BLOBS, *names) as file:
            found = os.fstat(file.fileno())
        if found.st_size != blob.size or found.st_mode & 0o077:
            return False
        new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.link(earlier.joinpath(manifest.BLOBS, *names), new, follow_symlinks=False)
    except OSError:  # not there, or on another file system
        return False
    return True


def _copy(store: Path, target: Path, blob: SavedBlob) -> bool:
    source = manifest.place(store, blob.blob)
    if not source.exists():
        return False
    with source.open("rb") as file:
        return manifest.copy(file, manifest.place(target / manifest.BLOBS, blob.blob), blob)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="a new or empty one")
    parser.add_argument(
        "--since",
        type=Path,
        metavar="EARLIER",
        help="an earlier backup on the same file system, whose files are linked, not copied",
    )


BACKUP = Command(
    backup,
    "Save the database and the files into a directory, consistently, each file held against its "
    "digest; status 1 if one was not what was stored.  The daemon may run or not.",
    _arguments,
)
