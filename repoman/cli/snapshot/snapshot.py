"""Taking a snapshot: an image file with a file system, into which rsync moves the system."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from attrs import frozen
from twisted.internet.task import deferLater

from repoman import __version__
from repoman.atomic_files import locked_anew, take_name
from repoman.cli.output import size as readable
from repoman.cli.snapshot.plan import (
    METADATA_FILE,
    Plan,
    check_above,
    check_leftovers,
    check_room,
    content_size,
    read_mounts,
    take_place,
    used_and_free,
)
from repoman.cli.snapshot.programs import ProgramFailed, Programs
from repoman.errors import Conflict

VANISHED = 24
"""rsync's exit status when files went away while it ran: systems are alive."""

TRIES = 20
"""How often to mount and to unmount what somebody still looks at, half a second apart."""


@frozen
class Snapshot:
    """A snapshot in the making.

    :ivar say: tells the person what happens.
    """

    plan: Plan
    programs: Programs
    say: Callable[[str], None]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else save at the same time.

        :raises Conflict: somebody does, or the place is not ours.
        """
        plan = self.plan
        for directory in {plan.directory, plan.lockfile.parent, plan.image.parent}:
            take_place(directory, of_caller=plan.of_caller)
        with ExitStack() as locks:
            # The directory too: another configuration may name another lock file for this image.
            for path, how in (
                (plan.image.parent, os.O_RDONLY | os.O_DIRECTORY),
                (plan.lockfile, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW),
            ):
                file = os.open(path, how, 0o600)
                locks.callback(os.close, file)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise Conflict("Another save is running on this machine.") from error
            yield

    def check(self) -> None:
        """Refuse what cannot succeed, before anything is touched.

        :raises ProgramMissing: a tool is missing.
        :raises Conflict: something of an earlier save is in the way.
        """
        plan = self.plan
        for name in ("rsync", f"mkfs.{plan.kind}", "mount", "umount"):
            self.programs.find(name)
        check_leftovers(plan, read_mounts(Path("/proc/self/mountinfo").read_text()))
        check_above(plan.mountpoint)
        if plan.mountpoint.exists():
            take_place(plan.mountpoint, of_caller=plan.of_caller)

    async def measure(self) -> None:
        """Look how much there is to copy, and whether there is room for it here.

        :raises NoRoom: it does not fit.
        """
        plan = self.plan
        with tempfile.TemporaryDirectory(dir=plan.directory) as nowhere:
            statistics = await self.programs.run(
                "rsync", *plan.rsync(), "--dry-run", "--stats", f"{plan.root}/", f"{nowhere}/",
                fine=(0, VANISHED),
            )  # fmt: skip
        used, _ = used_and_free(os.statvfs(plan.root))
        _, free = used_and_free(os.statvfs(plan.image.parent))
        kept = plan.image.stat().st_blocks * 512 if plan.image.exists() else 0
        content = content_size(statistics, used)
        check_room(plan, content, free, kept)
        self.say(f"Saving {readable(content)} of {plan.root} ...")

    async def take(self, metadata: Mapping[str, object], *, clean: bool) -> Path:
        """Bring the image file up to date; answer where it is.

        :param metadata: for the file inside that says what the image is.
        :param clean: begin anew, whatever an earlier save left.
        """
        if clean or not await self._can_be_reused():
            await self._format()
        else:
            self.say(f"Reusing the snapshot {self.plan.image} ...")
        async with self._mounted() as target:
            await self._copy(target)
            _write_metadata(target / METADATA_FILE, metadata)
            # What deleted files leave behind is nobody's business, and takes room.
            with suppress(ProgramFailed):
                await self.programs.run("fstrim", str(target))
        return self.plan.image

    async def compressed(self) -> Path:
        """The image file, packed."""
        packed = _temporary(self.plan.image, "save.gz")
        self.say("Compressing ...")
        with locked_anew(packed) as file:
            # -n: no name and date, so that the same system gives the same bytes.
            words = ("-c", "-n", str(self.plan.image))
            await self.programs.run("gzip", *words, stdout=file)
        return packed

    async def _can_be_reused(self) -> bool:
        plan = self.plan
        if not plan.image.is_file() or plan.image.stat().st_size != plan.size:
            return False
        return await self._ask_blkid(str(plan.image), "TYPE") == plan.kind

    async def _ask_blkid(self, device: str, what: str) -> str:
        try:
            words = ("-p", "-s", what, "-o", "value", device)
            return (await self.programs.run("blkid", *words)).strip()
        except ProgramFailed:
            return ""

    async def _format(self) -> None:
        """Make the file and its file system; it takes its name only when it is whole."""
        plan = self.plan
        self.say(f"Making an image of {readable(plan.size)} with {plan.kind} ...")
        part = _temporary(plan.image, "save")
        with locked_anew(part) as file:
            os.truncate(file, plan.size)
            await self.programs.run(f"mkfs.{plan.kind}", *await self._mkfs_words(), str(part))
            take_name(file, part, plan.image)

    async def _mkfs_words(self) -> list[str]:
        """The label and UUID of the original: its fstab and boot loader name them."""
        words = ["-f", "-q"] if self.plan.kind == "xfs" else ["-F", "-q"]
        uuid_option = ("-m", "uuid={}") if self.plan.kind == "xfs" else ("-U", "{}")
        if self.plan.device.startswith("/dev/"):
            if label := await self._ask_blkid(self.plan.device, "LABEL"):
                words += ["-L", label]
            if uuid := await self._ask_blkid(self.plan.device, "UUID"):
                words += [uuid_option[0], uuid_option[1].format(uuid)]
        return words

    @asynccontextmanager
    async def _mounted(self) -> AsyncIterator[Path]:
        plan = self.plan
        take_place(plan.mountpoint, of_caller=plan.of_caller)
        options = "loop,nodev,nosuid" + (",nouuid" if plan.kind == "xfs" else "")
        point = str(plan.mountpoint)
        try:
            await self._insist("mount", "-t", plan.kind, "-o", options, str(plan.image), point)
            yield plan.mountpoint
            # An unmounted file system lives on where another mount namespace has a
            # copy of it; a read-only one is whole on its disk for certain.
            await self._insist("mount", "-o", "remount,ro", point)
        finally:
            # Also after a mount that was cancelled: it may have come to its end.
            if os.path.ismount(plan.mountpoint):
                await self._insist("umount", point)

    async def _insist(self, *words: str) -> None:
        """Run a program again while somebody looks at what it needs."""
        for tries in range(TRIES):
            try:
                await self.programs.run(*words)
                return
            except ProgramFailed as error:
                # The Ctrl-C that ended us may have ended the program, too.
                passes = error.status < 0 or "busy" in str(error) or "already" in str(error)
                if not passes or tries == TRIES - 1:
                    raise
                await deferLater(self.programs.reactor, 0.5)

    async def _copy(self, target: Path) -> None:
        plan = self.plan
        self.say("Copying what has changed ...")
        words = [*plan.rsync(), *(["-v"] if self.programs.verbose else [])]
        await self.programs.run(
            "rsync", *words, f"{plan.root}/", f"{target}/", fine=(0, VANISHED), show=True
        )


def _temporary(image: Path, what: str) -> Path:
    """Beside the image, under a name that nothing else has: somebody's own is never in the way."""
    return image.with_name(f"{image.name}@{what}")


def _write_metadata(path: Path, metadata: Mapping[str, object]) -> None:
    facts = {
        **metadata,
        "saved": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "host": socket.gethostname(),
        "client": f"repoman {__version__}",
    }
    lines = (f"{key}: {' '.join(str(v).split())}" for key, v in facts.items() if v is not None)
    # The saved system's file of this name was not copied: a link would lead out of the image.
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
