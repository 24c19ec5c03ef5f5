"""The account that PostgreSQL of our own runs as, and directories only it may enter."""

from __future__ import annotations

import grp
import os
import pwd
import random
import stat
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from repoman.errors import Misconfigured

UNPRIVILEGED = ("repoman", "postgres", "nobody")
"""Whom PostgreSQL runs as under a privileged daemon: the first of these that exists."""

_HIGH_GIDS = range(0x60000000, 0x70000000)
"""Where no distribution, container or directory service hands out groups."""


@frozen
class Account:
    """A user and a group.

    :ivar name: of the user.
    :ivar foreign: not the daemon's own, so that privileges are given up.
    """

    name: str
    uid: int
    gid: int
    foreign: bool

    def owns(self, path: Path) -> bool:
        """The path belongs to this user and group."""
        status = path.lstat()
        return (status.st_uid, status.st_gid) == (self.uid, self.gid)


def own_account() -> Account:
    """The daemon's own account.

    :raises Misconfigured: it has no name, which PostgreSQL insists on.
    """
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise Misconfigured(
            [
                f"[database] dsn: PostgreSQL of our own needs a name for the user id {uid}:"
                " add it to /etc/passwd, or name a database in dsn"
            ]
        ) from None
    return Account(name, uid, os.getegid(), foreign=False)


def choose_account(base: Path, names: Sequence[str] = UNPRIVILEGED) -> Account:
    """Whom PostgreSQL runs as: ourselves, or somebody without privileges if we are root.

    Its group is private to the data under ``base``: a number without a name,
    drawn once, so that other processes of the same user stay outside.

    :param base: its group, or its parent's, tells the number that was drawn before.
    :raises Misconfigured: there is no such somebody.
    """
    own = own_account()
    if own.uid != 0:
        return own
    for name in names:
        try:
            uid = pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
        if uid != 0:
            return Account(name, uid, _drawn_gid(base), foreign=True)
    raise Misconfigured(
        [
            "[database] dsn: PostgreSQL refuses to run as root, and none of the users"
            f" {', '.join(names)} exists: add one, or name a database in dsn"
        ]
    )


def _drawn_gid(base: Path) -> int:
    for place in (base, base.parent):
        if place.exists() and _is_private(gid := place.stat().st_gid):
            return gid
    numbers = _mapped(_HIGH_GIDS)
    while True:
        # Not a secret: a number that nobody else happens to use.
        gid = random.choice(numbers)  # noqa: S311
        if _is_private(gid):
            return gid


def _mapped(wanted: range) -> range:
    """``wanted``, or in a user namespace without those the upper end of what it has."""
    lines = Path("/proc/self/gid_map").read_text().splitlines()
    maps = [(int(first), int(count)) for first, _, count in map(str.split, lines)]
    if any(first <= wanted.start and wanted.stop <= first + count for first, count in maps):
        return wanted
    end = max(first + count for first, count in maps)
    return range(max(end - 4096, 0), end)


def _is_private(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except KeyError:
        return gid != 0
    return False


def make_directory(path: Path, account: Account) -> None:
    """Make ``path`` a directory of ours that ``account`` may pass through, and no others."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account.foreign:
        os.chown(path, -1, account.gid)
        path.chmod(0o710)
    else:
        path.chmod(0o700)


def admit(path: Path, account: Account) -> None:
    """Let ``account`` pass through an existing directory, if no group is let in yet."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if account.foreign and not mode & 0o071:
        os.chown(path, -1, account.gid)
        path.chmod(mode | 0o010)


def closed_ancestor(path: Path, account: Account) -> Path | None:
    """The outermost directory on the way to ``path`` that ``account`` may not pass through."""
    for directory in (*reversed(path.parents), path):
        status = directory.stat()
        if status.st_uid == account.uid:
            needed = stat.S_IXUSR
        elif status.st_gid == account.gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not status.st_mode & needed:
            return directory
    return None
