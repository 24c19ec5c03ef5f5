"""A PostgreSQL data directory of our own: how it is made, and who may log in."""

from __future__ import annotations

import os
import select
import signal
import stat
import tempfile
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.task import deferLater

from repoman.database.account import own_account
from repoman.database.child import run
from repoman.database.confinement import Confinement
from repoman.database.programs import Programs
from repoman.errors import Misconfigured

NAME = "repoman"
"""The database, and the only role that can log in."""

SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "64MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
"""Sockets only inside the data directory; durable; small.  No values in the log."""

SOCKET = ".s.PGSQL.5432"
"""The socket's name in the data directory."""

# The superuser exists but no rule lets anybody be it.
_CREATE = f"CREATE ROLE {NAME} LOGIN CREATEDB\nCREATE DATABASE {NAME} OWNER {NAME}\n"

_PATIENCE = 10.0
"""Seconds that a predecessor gets to end by itself, and then after each signal."""


@frozen
class Cluster:
    """The data under ``base``, and the way to run programs on it."""

    reactor: Any
    base: Path
    programs: Programs
    confinement: Confinement

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.base / "data"

    async def prepare(self) -> None:
        """Make the data directory at the first start; be sure that it is ours alone."""
        if not self.data.exists():
            await self._create()
        account = self.confinement.account
        if account.foreign and not account.owns(self.data):
            # Restored from a backup, or from a time before we ran as root.
            await self._run("chown", "-hR", f"{account.uid}:{account.gid}", str(self.data))
        self._write_rules()

    def command(self) -> list[str]:
        """How to run the server."""
        settings = SETTINGS | {
            "hba_file": str(self.confinement.seen(self.base / "pg_hba.conf")),
            "ident_file": str(self.confinement.seen(self.base / "pg_ident.conf")),
        }
        options = [word for pair in settings.items() for word in ("-c", "=".join(pair))]
        return self._confined("postgres", "-D", self.data, *options)

    async def _create(self) -> None:
        # Under another name until it is whole: to be killed halfway costs only a new start.
        await self._run("rm", "-rf", "--", *map(str, self.base.glob("new-*")))
        new = Path(tempfile.mkdtemp(prefix="new-", dir=self.base))
        account = self.confinement.account
        if account.foreign:
            os.chown(new, account.uid, account.gid)
        options = ["--encoding=UTF8", "--locale=C", "--data-checksums", "--auth=reject"]
        await self._run(*self._confined("initdb", "-D", new, "-U", "postgres", *options))
        single = self._confined("postgres", "--single", "-D", new, "-c", "exit_on_error=on")
        await run(self.reactor, [*single, "postgres"], stdin=_CREATE.encode())
        new.rename(self.data)
        await self._run("sync", str(self.base))

    async def _run(self, *command: str) -> None:
        await run(self.reactor, command)

    def _confined(self, program: str, *words: str | Path) -> list[str]:
        seen = self.confinement.seen
        path = seen(self.programs.directory / program)
        argv = [str(path), *(str(seen(w) if isinstance(w, Path) else w) for w in words)]
        return self.confinement.command(argv)

    def _write_rules(self) -> None:
        """Let only the daemon's own user log in, not even the server's.

        In files that the server's account cannot change.
        """
        rules = {
            "pg_hba.conf": f"local all {NAME} peer map=daemon\n",
            "pg_ident.conf": f'daemon "{own_account().name}" {NAME}\n',
        }
        for name, text in rules.items():
            path = self.base / name
            path.write_text(text)
            os.chown(path, -1, self.confinement.account.gid)
            path.chmod(0o640)


def version_of(data: Path) -> str | None:
    """The major version of PostgreSQL that made ``data``; ``None`` if it does not exist."""
    return _first_line(data / "PG_VERSION")


async def end_predecessor(reactor: Any, data: Path) -> None:
    """Wait for a server that a killed daemon left behind; then end it.

    :raises Misconfigured: it does not end.
    """
    pid = _running(data)
    if pid is None:
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (None, signal.SIGINT, signal.SIGQUIT):
            if number is not None:
                signal.pidfd_send_signal(descriptor, number)
            if await _gone(reactor, descriptor):
                return
    finally:
        os.close(descriptor)
    raise Misconfigured(
        [f"[server] state: PostgreSQL of an earlier start, process {pid}, does not end: kill it"]
    )


async def _gone(reactor: Any, descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    for _ in range(round(_PATIENCE / 0.05)):
        if poll.poll(0):
            return True
        await deferLater(reactor, 0.05)
    return False


def _running(data: Path) -> int | None:
    """The process of the server that works in ``data``."""
    line = _first_line(data / "postmaster.pid")
    if line is None or not line.isdigit():
        return None
    try:
        # A number in a stale file may be anybody's by now.
        same = os.path.samestat(os.stat(f"/proc/{line}/cwd"), data.stat())
    except OSError:
        return None
    return int(line) if same else None


def _first_line(path: Path) -> str | None:
    # Written by the server's account, so neither links nor pipes are followed.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return file.readline(64).decode("ascii", "replace").strip()
