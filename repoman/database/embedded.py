"""PostgreSQL of our own: a child process of the daemon, reachable by the daemon alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT
from typing import Any

from psycopg2.extensions import make_dsn
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from repoman.database.account import UNPRIVILEGED, admit, choose_account, make_directory
from repoman.database.child import Child, ChildFailed, spawn
from repoman.database.cluster import NAME, SOCKET, Cluster, end_predecessor, version_of
from repoman.database.confinement import confine
from repoman.database.dsn import connection_parameters, ignore_environment
from repoman.database.link import Link
from repoman.database.lock import hold
from repoman.database.programs import find_programs
from repoman.errors import DatabaseUnavailable, Misconfigured

READY_LIMIT = 60.0
"""Seconds until a started server must let us in."""

DEATHS = 5
"""How often a server may die before it lets us in.  The processes that one
killed the hard way leaves behind keep the next ones off, for a moment."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds until a server that died is started again: doubled with each death."""

STEADY = 60.0
"""Seconds after which an earlier death no longer counts."""

FAST, IMMEDIATE = 30.0, 40.0
"""Seconds into a stop after which it is made less and less gentle."""

_LONGEST_SOCKET_PATH = 107
"""In bytes: ``sun_path`` without its NUL."""

_LOG_LIMIT = 1 << 20
"""Bytes of PostgreSQL's log that a start leaves in place."""

_log = Logger()


class EmbeddedPostgres:
    """A PostgreSQL server whose life is the daemon's.

    The data is in ``<state>/database``.  The server listens only on a socket
    there, lets in only the daemon's user, and ends with the daemon, however
    that ends.  A privileged daemon runs it as a user without privileges.

    :param state: the daemon's directory for all that must last.
    :param accounts: whom it may run as under a privileged daemon.
    """

    def __init__(
        self, reactor: Any, state: Path, *, accounts: Sequence[str] = UNPRIVILEGED
    ) -> None:
        self._reactor = reactor
        self._state = state.resolve()
        self._base = self._state / "database"
        self._data = self._base / "data"
        self._log_file = self._state / "log" / "postgresql.log"
        self._accounts = accounts
        self._descriptors: list[int] = []
        self._stopping = False
        self._deaths = 0
        self._server: Child | None = None
        self._pause: Deferred[None] | None = None
        self._starting: Deferred[None] | None = None
        self._running: Deferred[None] | None = None

    async def start(self) -> str:
        """Start the server, and make its data at the first time; answer its DSN.

        :raises Misconfigured: it cannot run here, with the remedy.
        :raises DatabaseUnavailable: it does not start, with its own reason.
        """
        ignore_environment()
        self._starting = Deferred()
        try:
            with _explained():
                return await self._start()
        except Exception:
            await self._end()
            raise
        finally:
            self._starting.callback(None)

    async def stop(self) -> None:
        """Stop the server; answer when its process is gone.  Harmless twice."""
        self._stopping = True
        if self._starting is not None:
            await self._starting
        await self._end()

    @property
    def pid(self) -> int | None:
        """The server's process id, while it runs."""
        return self._server.pid if self._server else None

    @property
    def named_in_dsn(self) -> list[int]:
        """Descriptors of ours that the DSN needs, in whatever process it is used."""
        return self._descriptors[1:]

    async def _start(self) -> str:
        cluster = await self._prepare()
        self._running = Deferred.fromCoroutine(self._keep_running(cluster.command()))
        dsn = self._dsn()
        await self._wait_until_ready(dsn)
        return dsn

    async def _prepare(self) -> Cluster:
        existed = self._state.exists()
        account = choose_account(self._base, self._accounts)
        if existed:
            admit(self._state, account)
        else:
            make_directory(self._state, account)
        self._descriptors.append(await hold(self._reactor, self._state))
        make_directory(self._base, account)
        self._log_file.parent.mkdir(mode=0o700, exist_ok=True)
        await end_predecessor(self._reactor, self._data)
        programs = await find_programs(self._reactor, version_of(self._data))
        confinement = await confine(self._reactor, account, self._base, programs)
        cluster = Cluster(self._reactor, self._base, programs, confinement)
        await cluster.prepare()
        return cluster

    def _dsn(self) -> str:
        host = str(self._data)
        if len(os.fsencode(f"{host}/{SOCKET}")) > _LONGEST_SOCKET_PATH:
            self._descriptors.append(os.open(self._data, os.O_PATH | os.O_CLOEXEC))
            host = f"/proc/self/fd/{self._descriptors[-1]}"
        return make_dsn(host=host, port=5432, user=NAME, dbname=NAME)

    async def _wait_until_ready(self, dsn: str) -> None:
        parameters = connection_parameters(dsn, application_name=NAME, statement_timeout=30)
        deadline = self._reactor.seconds() + READY_LIMIT
        while self._reactor.seconds() < deadline and self._deaths < DEATHS:
            if self._stopping:
                raise DatabaseUnavailable("The server is stopping.")
            link = Link(self._reactor, lambda link: None)
            try:
                await link.open(parameters)
            except CancelledError:
                raise
            except Exception:  # not yet; the server's own log has the reason
                await deferLater(self._reactor, 0.05)
            else:
                link.shut()
                return
        raise DatabaseUnavailable(
            f"PostgreSQL of our own does not start: {self._last_words()} (see {self._log_file})"
        )

    async def _keep_running(self, command: Sequence[str]) -> None:
        while not self._stopping:
            began = self._reactor.seconds()
            why = await self._run(command)
            if self._reactor.seconds() - began > STEADY:
                self._deaths = 0
            if not self._stopping:
                self._deaths += 1
                _log.error("PostgreSQL of our own ended: {why}; starting it again", why=why)
                pause = min(FIRST_PAUSE * 2 ** (self._deaths - 1), LONGEST_PAUSE)
                self._pause = deferLater(self._reactor, pause)
                with suppress(CancelledError):
                    await self._pause

    async def _run(self, command: Sequence[str]) -> str:
        """Run the server to its end; answer the reason."""
        try:
            log = self._open_log()
            self._server = spawn(self._reactor, command, files={0: "w", 1: log, 2: log})
            os.close(log)
        except OSError as error:
            return str(error)
        await self._server.ended()
        return self._last_words()

    async def _end(self) -> None:
        self._stopping = True
        if self._pause is not None:
            self._pause.cancel()
        if self._running is not None:
            await self._end_server(self._running)
        while self._descriptors:
            os.close(self._descriptors.pop())

    async def _end_server(self, running: Deferred[None]) -> None:
        gentle = [(0.0, SIGINT), (FAST, SIGQUIT), (IMMEDIATE, SIGKILL)]
        timers = [self._reactor.callLater(after, self._signal, s) for after, s in gentle]
        await running
        for timer in timers:
            if timer.active():
                timer.cancel()

    def _signal(self, number: int) -> None:
        if self._server is not None:
            self._server.signal(number)

    def _open_log(self) -> int:
        with suppress(FileNotFoundError):
            if self._log_file.stat().st_size > _LOG_LIMIT:
                self._log_file.replace(self._log_file.with_suffix(".log.1"))
        return os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _last_words(self) -> str:
        """The last complaint in PostgreSQL's log."""
        lines: list[str] = []
        with suppress(FileNotFoundError), self._log_file.open("rb") as file:
            file.seek(max(0, self._log_file.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
        complaints = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
        return next(reversed(complaints or lines), "without a word")


@contextmanager
def _explained() -> Iterator[None]:
    """Say what an administrator should read."""
    try:
        yield
    except ChildFailed as error:
        full = ": make room on its disk" if os.strerror(ENOSPC) in error.output else ""
        raise DatabaseUnavailable(f"PostgreSQL of our own cannot start: {error}{full}") from error
    except OSError as error:
        place = error.filename or "its disk"
        raise Misconfigured(
            [f"[server] state: {place}: {error.strerror}: mend that, or name another directory"]
        ) from error
