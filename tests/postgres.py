"""A real PostgreSQL for tests, run as the daemon runs its own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import make_dsn, parse_dsn
from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from repoman.database.embedded import EmbeddedPostgres
from repoman.database.programs import find_programs

_numbers = itertools.count(1)


async def running_postgres(reactor: Any, state: Path) -> tuple[EmbeddedPostgres, str]:
    """Start a server under ``state``; whoever asked for it stops it."""
    server = EmbeddedPostgres(reactor, state)
    return server, await server.start()


@contextmanager
def postgres_for_session(reactor: Any, state: Path) -> Iterator[str]:
    """The DSN of a server for a fixture of session scope, which cannot be asynchronous."""
    server, dsn = blockon(Deferred.fromCoroutine(running_postgres(reactor, state)))
    try:
        yield dsn
    finally:
        blockon(Deferred.fromCoroutine(server.stop()))


def on_server(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement outside any pool, and wait for it: for a test's own arrangements."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []


def fresh_database(dsn: str, *, template: str = "template0") -> str:
    """The DSN of a new database: empty, or a copy of one that nobody is connected to.

    The copy of a migrated one takes some 30 ms.
    """
    name = f"test_{next(_numbers)}"
    on_server(dsn, f"CREATE DATABASE {name} TEMPLATE {template}")
    return make_dsn(dsn, dbname=name)


def drop_database(dsn: str) -> None:
    """Remove what :func:`fresh_database` made, and whoever is connected to it."""
    name = parse_dsn(dsn)["dbname"]
    end = time.monotonic() + 20
    while True:
        try:
            on_server(make_dsn(dsn, dbname="repoman"), f"DROP DATABASE {name} WITH (FORCE)")
        except InsufficientPrivilege:  # an autovacuum is at work there, which is the server's own
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


class Listening:
    """A server of somebody else's, that listens on an address.

    :param enter: what begins the command of a program that shall run on another host.
    """

    def __init__(self, address: str, port: int, enter: Sequence[str] = ()) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.dsn = make_dsn(host=address, port=port, user="repoman", dbname="postgres")
        self._listens = ["-h", address, "-p", str(port), "-c", "fsync=off"]
        self._enter = enter
        self._programs = blockon(Deferred.fromCoroutine(find_programs(reactor, None))).directory
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.place, "nobody")

    @classmethod
    @contextmanager
    def running(cls, address: str, port: int, enter: Sequence[str] = ()) -> Iterator[Listening]:
        """A new one, until the block ends."""
        server = cls(address, port, enter)
        try:
            server.make()
            server.start()
            yield server
        finally:
            server.end()

    def make(self) -> None:
        """Lay out an empty one, to which everybody near by is let in."""
        options = ["-D", "data", "-A", "trust", "-U", "repoman", "-E", "UTF8", "--no-sync"]
        self.do("initdb", *options)
        with (self.place / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")

    def follow(self, other: Listening) -> None:
        """Become a standby of one that is stopped."""
        shutil.copytree(other.place / "data", self.place / "data")
        (self.place / "data" / "standby.signal").touch()
        with (self.place / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{other.dsn}'\n")
        if os.geteuid() == 0:
            for path in (self.place / "data").rglob("*"):
                shutil.chown(path, "nobody")
            shutil.chown(self.place / "data", "nobody")

    def start(self) -> None:
        """Run it, and wait until it answers."""
        command = [*self._enter, *self._command("postgres", "-D", "data", "-k", self.place)]
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._listens], cwd=self.place, stdout=log, stderr=log
            )
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                on_server(self.dsn, "SELECT 1")
            except psycopg2.OperationalError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError((self.place / "log").read_text())

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)

    def end(self) -> None:
        """End it, and keep nothing."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.place)

    def do(self, program: str, *arguments: Any) -> None:
        """Run one of its programs."""
        subprocess.run(
            self._command(program, *arguments), cwd=self.place, check=True, capture_output=True
        )

    def _command(self, program: str, *arguments: Any) -> list[str]:
        # It refuses to run as root.
        nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        command = [self._programs / program, *arguments]
        return [*(nobody if os.geteuid() == 0 else []), *map(str, command)]
