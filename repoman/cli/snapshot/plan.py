"""What a snapshot will be: decided before anything is touched."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from repoman.cli.exits import Usage
from repoman.cli.output import size as readable
from repoman.client.settings import SYSTEM_FILE, Settings
from repoman.client.shared import followed
from repoman.errors import Conflict, NoRoom, NotPermitted, RepomanError

MEBIBYTE = 2**20

FILE_SYSTEMS = ("ext4", "ext3", "ext2", "xfs")
"""Those that an image can have; anything else becomes the first."""

LOCAL = frozenset({*FILE_SYSTEMS, "btrfs", "jfs", "reiserfs", "f2fs", "vfat", "zfs", "overlay"})
"""File systems whose files belong to the system."""

DEVICES = ("/dev/console", "/dev/null", "/dev/zero", "/dev/tty")
"""What a system needs in /dev before it can fill it itself."""

METADATA_FILE = ".image.metadata"
"""In the root of the image: what it is."""

PLACES = ("snapshot_directory", "snapshot", "mountpoint", "lockfile")
"""The settings that say where a snapshot is made."""

MARK = ".snapshots-of-repoman"
"""In a directory that a caller's configuration names: save has found it new or empty."""

SPARE = 0.08
"""What a file system needs for itself, as a part of what is in it."""


@frozen
class Mount:
    """A line of ``/proc/self/mountinfo`` (proc(5))."""

    point: Path
    kind: str
    device: str


@frozen
class Plan:
    """A snapshot.

    :ivar root: the directory that becomes the image's root.
    :ivar image: the image file, kept for the next time.
    :ivar size: of the image's file system, in bytes.
    :ivar kind: of the image's file system.
    :ivar excludes: patterns of rsync(1), anchored at ``root``.
    :ivar device: that ``root`` is on; may be nothing that can be asked.
    :ivar keeps_size: the size is that of an earlier snapshot.
    :ivar of_caller: under sudo, the caller's configuration says where image, mountpoint and
        lock file are: none of them may be what the caller could not overwrite.
    """

    root: Path
    image: Path
    mountpoint: Path
    lockfile: Path
    directory: Path
    size: int
    kind: str
    excludes: tuple[str, ...]
    device: str = ""
    keeps_size: bool = False
    of_caller: bool = False

    def rsync(self) -> list[str]:
        """The words for rsync, but for source and target."""
        return [
            # Beyond -a: hard links, access lists, extended attributes (file
            # capabilities), and numbers instead of names, as they are on the disk.
            "-aHAX", "--numeric-ids", "--sparse", "--delete", "--delete-excluded",
            *(f"--include={device}" for device in DEVICES),
            *(f"--exclude={pattern}" for pattern in self.excludes),
        ]  # fmt: skip


def read_mounts(text: str) -> list[Mount]:
    """The mounts in ``/proc/self/mountinfo``, in their order."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        point, (kind, device, *_) = before.split(" ")[4], after.split(" ")
        mounts.append(Mount(Path(_unescaped(point)), kind, _unescaped(device)))
    return mounts


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def mount_of(path: Path, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that a path is on."""
    around = [m for m in mounts if path == m.point or m.point in path.parents]
    return max(around, key=lambda m: len(m.point.parts), default=None)


def make_plan(
    root: Path,
    settings: Settings,
    mounts: Sequence[Mount],
    resize: int | None,
    *,
    clean: bool = False,
) -> Plan:
    """Decide.

    :param resize: the wanted size in MiB; ``None`` for that of an earlier snapshot, or else
        of the root's file system.
    :param clean: an earlier snapshot does not count.
    :raises Usage: there is no such directory, or nobody knows how large the image shall be.
    """
    if not root.is_dir():
        raise Usage(f"{root} is not a directory.")
    root = root.resolve()
    on = mount_of(root, mounts)
    kind = on.kind if on and on.kind in FILE_SYSTEMS else FILE_SYSTEMS[0]
    image = _real(settings.place(settings.snapshot))
    kept = 0 if resize or clean else _size_of_earlier(image)
    size = resize * MEBIBYTE if resize else kept or _size_of(root, on.device if on else "")
    return Plan(
        root=root,
        image=image,
        mountpoint=_real(settings.place(settings.mountpoint)),
        lockfile=_real(settings.place(settings.lockfile)),
        directory=_real(Path(settings.snapshot_directory)),
        size=size // MEBIBYTE * MEBIBYTE,
        kind=kind,
        excludes=_excludes(root, settings, mounts),
        device=on.device if on else "",
        keeps_size=bool(kept),
        of_caller=any(name in settings.of_caller for name in PLACES),
    )


def _real(path: Path) -> Path:
    """The path through directories that are no links: who checks them checks all of the way.

    :raises PermissionError: a link on the way is a stranger's, see :func:`followed`.
    """
    return followed(path.parent) / path.name


def _size_of_earlier(image: Path) -> int:
    """Of the snapshot that an earlier save has left, in bytes; 0 without one."""
    with suppress(OSError):
        state = image.lstat()
        if stat.S_ISREG(state.st_mode):
            return state.st_size // MEBIBYTE * MEBIBYTE
    return 0


def _size_of(root: Path, device: str) -> int:
    """Of the disk that a file system is on, in bytes."""
    if device.startswith("/dev/"):
        with suppress(OSError):
            disk = os.open(device, os.O_RDONLY)
            try:
                return os.lseek(disk, 0, os.SEEK_END)
            finally:
                os.close(disk)
    room = os.statvfs(root)
    if not room.f_blocks:
        raise Usage(f"{root} is on a file system that does not say how large it is: say --resize.")
    return room.f_blocks * room.f_frsize


def used_and_free(found: os.statvfs_result) -> tuple[int, int]:
    """Bytes that a file system holds and has room for; without limit where it does not say."""
    if not found.f_blocks:  # as ramfs, and what FUSE mounts
        return sys.maxsize, sys.maxsize
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    return used, found.f_bavail * found.f_frsize


def _excludes(root: Path, settings: Settings, mounts: Iterable[Mount]) -> tuple[str, ...]:
    """What is not part of the system: as configured, what is no disk, and the snapshot itself."""
    words = re.split(r"[\s,]+", f"{settings.system_excludes} {settings.user_excludes}")
    foreign = [m.point for m in mounts if m.kind not in LOCAL and root in m.point.parents]
    own = [settings.snapshot, settings.lockfile, settings.mountpoint, ""]
    inside = [path for path in map(settings.place, own) if root in path.resolve().parents]
    # Last what is ours: a word "!" of the user's would begin the list anew.
    return (
        *filter(None, words),
        *(f"/{_literal(point.relative_to(root))}/*" for point in foreign),
        *(f"/{_literal(path.resolve().relative_to(root))}" for path in inside),
        f"/{METADATA_FILE}",
    )


def _literal(path: Path) -> str:
    """A path in rsync's patterns."""
    return re.sub(r"([*?\[\\])", r"\\\1", str(path))


def check_account(uid: int) -> None:
    """Only root may mount and read everything.

    :raises NotPermitted: somebody else asks.
    """
    if uid != 0:
        raise NotPermitted(
            "Only root can take a snapshot of the system: run sudo repoman save ..., which finds"
            " your own proxy."
        )


def take_place(directory: Path, *, of_caller: bool) -> None:
    """Make sure of a directory in which root writes.

    :param of_caller: named by the configuration of who called sudo: then it must be new, empty,
        or taken before, since they choose the names of the files that are overwritten in it.
    :raises Conflict: somebody else rules it, or it holds what is not ours.
    """
    check_above(directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_above(directory)
    check_place(directory)
    mark, usual = directory / MARK, _real(Path(Settings().snapshot_directory))
    if not of_caller or directory == usual or mark.exists():
        return
    if any(directory.iterdir()):
        raise Conflict(
            f"{directory} holds files, and your configuration names it, not root's: name a new"
            f" directory in section [ThisImage], or have root name it in {SYSTEM_FILE}."
        )
    mark.touch(mode=0o600)


def check_place(directory: Path) -> None:
    """Nobody but root may rule where the snapshot lies: others would read what root reads.

    :raises Conflict: somebody else made that directory, or may write there.
    """
    state = directory.lstat()
    if state.st_uid != os.geteuid() or state.st_mode & 0o022 or directory.is_symlink():
        raise Conflict(
            f"{directory} belongs to somebody else, or others may write there: remove it, or set"
            " snapshot_dir in section [ThisImage]."
        )


def check_above(directory: Path) -> None:
    """Nobody but root may put something else in the place of a directory in which root writes.

    :raises Conflict: somebody could, in a directory above it.
    """
    for above in filter(Path.exists, directory.parents):
        state = above.lstat()
        # The sticky bit keeps what is there for its owner (unlink(2), rename(2)).
        replaced = state.st_mode & 0o022 and not state.st_mode & stat.S_ISVTX
        if state.st_uid != os.geteuid() or replaced or above.is_symlink():
            raise Conflict(
                f"{above} belongs to somebody else, or others may write there, who could replace"
                f" {directory}: set snapshot_dir in section [ThisImage] to a place of root's."
            )


def check_leftovers(plan: Plan, mounts: Iterable[Mount]) -> None:
    """An earlier save may have been killed before it could unmount.

    :raises Conflict: it was.
    """
    if any(mount.point == plan.mountpoint.resolve() for mount in mounts):
        raise Conflict(
            f"An earlier save was killed and left {plan.mountpoint} mounted; run:"
            f" umount {plan.mountpoint}"
        )


def check_room(plan: Plan, content: int, free: int, kept: int) -> None:
    """The content must fit into the image, and the image onto its disk.

    :param content: of the system without the excludes, in bytes.
    :param free: where the image is to lie, in bytes.
    :param kept: what an earlier snapshot takes there, in bytes.
    :raises NoRoom: it does not.
    """
    needed = int(content * (1 + SPARE))
    if needed > plan.size:
        whose = ", the size of the earlier snapshot" if plan.keeps_size else ""
        raise NoRoom(
            f"The system holds {readable(content)}, which does not fit into an image of"
            f" {readable(plan.size)}{whose}: say --resize {needed // MEBIBYTE + 1}, or exclude"
            " something (user_excludes)."
        )
    if needed > free + kept:
        raise NoRoom(
            f"The system holds {readable(content)}, but {plan.image.parent} has room for"
            f" {readable(free + kept)}: set snapshot_dir in section [ThisImage] to a larger"
            " place, or exclude something (user_excludes)."
        )


def remarks(plan: Plan, hypervisors: Sequence[str], is_partition: bool) -> list[str]:
    """What a person should know about the image, and may not expect."""
    found = []
    if is_partition:
        found.append(
            f"{plan.device} is a partition: the image holds its file system alone, without"
            " partition table and boot loader."
        )
    if len(hypervisors) > 1:
        found.append(
            f"The same bytes are uploaded for {' and '.join(hypervisors)}: the system must bring"
            " along what it takes to boot on each."
        )
    return found


def content_size(statistics: str, used: int) -> int:
    """How much there is to copy, in bytes.

    :param statistics: of rsync's dry run.  They count the holes of sparse files...
    :param used: ... and this the excludes: the truth is below both.
    :raises RepomanError: rsync speaks another language.
    """
    found = re.search(r"^Total file size: ([\d,]+)", statistics, re.MULTILINE)
    if not found:
        raise RepomanError("rsync does not say how much there is to copy.")
    return min(int(found[1].replace(",", "")), used)


DENSEST = 1032
"""How many bytes of nothing but zeros deflate (RFC 1951) puts into one, and no bytes are better."""


def least_size(size: int, *, gzip: bool) -> int:
    """How many bytes an image's file has for certain, of a file system of ``size`` bytes."""
    return max(size // DENSEST if gzip else size, 1)


def sizes_at_peak(size: int, replaced: Sequence[int]) -> list[int]:
    """Files that together take the room that one after the other will take at its highest.

    :param size: of each file to be sent, in bytes.
    :param replaced: what each of them replaces, in bytes: room that is free only after it.
    """
    taken = peak = 0
    for before in replaced:
        peak = max(peak, taken + size)
        taken += size - before
    count, rest = divmod(peak, size)
    return [size] * count + [rest] * bool(rest)
