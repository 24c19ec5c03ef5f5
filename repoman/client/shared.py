"""Writing where others can leave things, as in ``/tmp``: never into a link or a pipe of theirs.

The rules are those of Linux's ``fs.protected_symlinks`` and ``fs.protected_fifos``
(proc_sys_fs(5)), which not every machine has switched on, and which look at
no file that is there already and is opened without ``O_CREAT``.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from repoman.client.sudo import believed_owners

MOST_LINKS = 40
"""As many links in a row as Linux follows (path_resolution(7))."""


def followed(path: Path) -> Path:
    """The place, there or not yet, to which a path leads by links.

    :raises PermissionError: a link on the way is of somebody else, who could leave it there
        because others may write in that directory.
    :raises OSError: the links lead nowhere.
    """
    ahead = [*reversed(path.absolute().parts)]
    place, links = Path(ahead.pop()), 0
    while ahead:
        name = ahead.pop()
        step = place.parent if name == ".." else place / name
        # What /proc calls links are the open files themselves, which their text need not name.
        if not step.is_symlink() or step.parts[:2] == ("/", "proc"):
            place = step
            continue
        refuse_of_others(step, step.lstat())
        links += 1
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = Path(os.readlink(step))
        place = Path(target.anchor or place)
        ahead += reversed(target.parts[1:] if target.anchor else target.parts)
    return place


def open_for_writing(path: Path, flags: int) -> int:
    """Open what a path leads to, for writing; a pipe must have its reader already.

    :param flags: of open(2), besides.
    :raises PermissionError: it is of somebody else, see :func:`followed`.
    :raises OSError: it cannot be opened.
    """
    place = followed(path)
    # What is a link still is one of /proc.
    firm = 0 if place.is_symlink() else os.O_NOFOLLOW
    file = os.open(place, flags | firm | os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    try:
        refuse_of_others(place, os.fstat(file))
    except OSError:
        os.close(file)
        raise
    return file


def refuse_of_others(path: Path, found: os.stat_result) -> None:
    """Refuse what somebody else has left at ``path`` because others may write there, too.

    :param found: what was found there.
    :raises PermissionError: it is a stranger's.
    """
    around = path.parent.stat()
    sticky = bool(around.st_mode & stat.S_ISVTX)
    if not around.st_mode & (0o022 if sticky else 0o002):
        return
    if found.st_uid not in {*believed_owners(os.environ), around.st_uid}:
        raise PermissionError(
            errno.EPERM, "Somebody else has laid it there: remove it, or choose another place",
            str(path),
        )  # fmt: skip
