"""``import-original``: take over what an original Repoman holds."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from attrs import evolve

from repoman import config
from repoman.assembly import assemble, make_store
from repoman.database.blobs import BlobRecords
from repoman.database.groups import GroupRecords
from repoman.database.images import ImageRecords
from repoman.database.original import read_original
from repoman.database.users import UserRecords
from repoman.errors import AlreadyExists, Misconfigured, RepomanError, Unavailable
from repoman.interfaces import IConsuming
from repoman.model import Caller, Image, User
from repoman.operator.command import Command
from repoman.operator.database import Reached, with_database
from repoman.original import Plan, PlannedFile, PlannedImage, plan
from repoman.reach import Reach
from repoman.repository.files import Files
from repoman.repository.images import FileRef
from repoman.streams import Flow
from repoman.user_records import NewGroup, NewUser


def import_original(arguments: Namespace) -> int:
    """Take over users, groups, images and files; report each collision."""
    settings = config.load(arguments.config)
    directory: Path = arguments.images
    try:
        there = [entry for entry in os.scandir(directory) if entry.is_file()]
        files = {entry.name: entry.stat().st_size for entry in there}
    except OSError as error:
        raise Misconfigured([f"{directory} cannot be read: {error.strerror}"]) from None
    now = datetime.now(timezone.utc)
    wanted = plan(read_original(arguments.database), files, now)
    if arguments.dry_run:
        return _report(wanted, len(wanted.users), len(wanted.groups), len(wanted.images))

    async def work(reached: Reached) -> int:
        store = await make_store(reached.reactor, settings, BlobRecords(reached.pool))
        await store.start()
        reached.stack.push_async_callback(store.stop)
        files = assemble(
            settings, reached.pool, store, lambda: datetime.now(timezone.utc), _nothing, list
        ).repository.files
        return await _Import(reached, wanted, files, directory).run()

    return with_database(settings, work)


def _nothing() -> None:
    pass


def _report(wanted: Plan, users: int, groups: int, images: int) -> int:
    print(*wanted.findings, sep="\n", file=sys.stderr, end="\n" if wanted.findings else "")
    print(f"{users} users, {groups} groups, {images} images; {len(wanted.findings)} to look at.")
    return 1 if wanted.findings else 0


class _Import:
    """One run; what is there already stays as it is, so it may be run again."""

    def __init__(self, reached: Reached, wanted: Plan, files: Files, directory: Path) -> None:
        self._reactor = reached.reactor
        self._wanted = wanted
        self._files = files
        self._directory = directory
        self._users = UserRecords(reached.pool)
        self._groups = GroupRecords(reached.pool)
        self._images = ImageRecords(reached.pool)

    async def run(self) -> int:
        wanted = self._wanted
        users = [await self._tried(f"user {u.user_name}", self._user(u)) for u in wanted.users]
        groups = [await self._tried(f"group {g.name}", self._group(g)) for g in wanted.groups]
        images = [
            await self._tried(f"image {i.new.owner}/{i.new.name}", self._image(i))
            for i in wanted.images
        ]
        return _report(wanted, sum(users), sum(groups), sum(images))

    async def _tried(self, what: str, work: Any) -> bool:
        try:
            await work
        except Unavailable:
            raise
        except RepomanError as error:
            self._wanted.findings.append(f"{what}: {error.message}")
            return False
        return True

    async def _user(self, new: NewUser) -> None:
        there = await self._users.find(new.user_name)
        if there is None or there.client_dns != new.client_dns:
            await self._users.create(new)

    async def _group(self, new: NewGroup) -> None:
        group = await self._groups.find(new.name)
        if group is None:
            group = await self._groups.create(NewGroup(new.name))
        for user in [await self._users.find(name) for name in new.users]:
            if user is not None:
                await self._groups.add_member(group, user)
        for permission in new.permissions:
            await self._groups.permit(group, permission)

    async def _image(self, wanted: PlannedImage) -> None:
        new = wanted.new
        owner = await self._users.find(new.owner)
        if owner is None:
            raise Misconfigured(["its owner is not taken over"])
        try:
            image = await self._images.create(new)
        except AlreadyExists:
            found = await self._images.find(new.owner, new.name, Reach(everything=True))
            if found is None:
                raise
            image = found
        for file in wanted.files:
            if file.hypervisor not in image.files:
                what = f"image {image.path}, file {file.file}"
                await self._tried(what, self._store(owner, image, file))
        for user in wanted.users:
            await self._images.share(image, user=user)
        for group in wanted.groups:
            await self._images.share(image, group=group)
        if wanted.read_only and not image.read_only:
            await self._images.change(image, {"read_only": True}, 0)

    async def _store(self, owner: User, image: Image, file: PlannedFile) -> None:
        ref = FileRef(image.name, owner=image.owner, hypervisor=file.hypervisor)
        body = _FileBody(self._reactor, self._directory / file.file)
        try:
            active = Caller(evolve(owner, suspended=False))
            await self._files.store(active, ref, body, True, file.expected)
        except OSError as error:
            raise Misconfigured([f"cannot be read: {error.strerror}"]) from None
        finally:
            body.close()


class _FileBody:
    """A file as a body that comes in."""

    def __init__(self, reactor: Any, path: Path) -> None:
        self._reactor = reactor
        self._file = path.open("rb", buffering=0)
        self.length = os.fstat(self._file.fileno()).st_size

    async def deliver_to(self, consumer: IConsuming) -> int:
        await Flow(self._reactor, self._read, consumer, 0, self.length).run()
        return self.length

    def _read(self, offset: int, count: int) -> bytes:
        data = os.pread(self._file.fileno(), count, offset)
        if not data:
            raise OSError(0, "it has become shorter")
        return data

    def interrupt(self) -> None:
        self.close()

    async def read(self, limit: int) -> bytes:
        return os.pread(self._file.fileno(), limit, 0)

    def close(self) -> None:
        self._file.close()


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "database",
        metavar="DATABASE",
        help="the original's: a SQLite file, or PostgreSQL's connection string or URL",
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help="its image_storage directory")
    parser.add_argument("--dry-run", action="store_true", help="only say what is to be looked at")


IMPORT = Command(
    import_original,
    "Take over users, groups, images and files of an original Repoman.  Where two things claim the "
    "same, none gets it and it is said; status 1 then.  May be run again.  The daemon may run.",
    _arguments,
)
