"""Transactions in PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from psycopg2 import OperationalError
from psycopg2.errors import (
    DeadlockDetected,
    FeatureNotSupported,
    InFailedSqlTransaction,
    InvalidSqlStatementName,
    SerializationFailure,
)
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from repoman.audit import ORIGIN, Change
from repoman.database.answers import Answers
from repoman.database.chain import append
from repoman.database.dsn import connection_parameters
from repoman.database.link import Link, LinkLost, Parameters, detached
from repoman.database.links import Links
from repoman.database.prepared import Prepared, prepared
from repoman.errors import DatabaseUnavailable, OutcomeUnknown, RepomanError

T = TypeVar("T")

# A lost link, or one whose plans are of tables that a newer release has changed.
_STALE = (LinkLost, FeatureNotSupported, InvalidSqlStatementName)

ATTEMPTS = 5
"""How often a transaction is tried that conflicts with others (SQLSTATE 40001, 40P01)."""

GRACE = 2.0
"""Seconds that the server gets beyond its own ``statement_timeout``."""

_log = Logger()


class Transaction:
    """What a unit of work gets: statements between BEGIN and COMMIT.

    SQL has psycopg2's placeholders (``%s``, ``%(name)s``); without parameters
    a ``%`` is just that.  Errors of the server come as :mod:`psycopg2.errors`,
    to be translated by whoever knows the constraint.
    """

    def __init__(self, link: Link, limit: float) -> None:
        self._link: Link | None = link
        self._limit = limit
        self.changes: list[Change] = []

    async def run(self, sql: str, params: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run a statement; answer its rows, none for one that returns nothing."""
        return _rows(await self._send(sql, params))

    async def run_one(self, sql: str, params: Parameters = ()) -> tuple[Any, ...] | None:
        """Run a statement; answer its first row, if there is one."""
        return next(iter(await self.run(sql, params)), None)

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run a statement; answer how many rows it touched."""
        return int((await self._send(sql, params)).rowcount)

    def record(self, change: Change) -> None:
        """Let the audit have a row for ``change`` when this transaction is committed."""
        self.changes.append(change)

    async def allow(self, seconds: float) -> None:
        """Let each statement of this transaction take and wait this long, in seconds."""
        milliseconds = str(round(seconds * 1000))
        await self._send(
            "SELECT set_config(name, %s, true)"
            " FROM unnest(ARRAY['statement_timeout', 'lock_timeout']) AS name",
            [milliseconds],
        )
        self._limit = seconds + GRACE

    def close(self) -> None:
        """Refuse any further statement."""
        self._link = None

    async def _send(self, sql: str, params: Parameters) -> Any:
        if self._link is None:
            raise RuntimeError("This transaction is over")
        return await self._link.execute(sql, params, limit=self._limit)


class Pool:
    """Transactions over a few connections that are kept alive in the background.

    Callers' Deferreds are detached: cancelling one leaves its transaction to
    run to its end (to reach into it would block the process, see
    :class:`~repoman.database.link.Link`).

    :param dsn: libpq key/value string or URL.
    :param size: how many connections.
    :param wait: seconds to wait for a free connection, and for a first answer on it.
    :param statement_timeout: seconds that one statement may take.
    :param is_alone: no other daemon uses this database.
    :raises Misconfigured: ``dsn`` cannot be read.
    """

    def __init__(
        self,
        reactor: Any,
        dsn: str,
        *,
        size: int = 8,
        wait: float = 3.0,
        statement_timeout: float = 30.0,
        application_name: str = "repoman",
        is_alone: bool = False,
    ) -> None:
        parameters = connection_parameters(
            dsn, application_name=application_name, statement_timeout=statement_timeout
        )
        self._reactor = reactor
        self._links = Links(reactor, parameters, size=size, wait=wait)
        self._wait = wait
        self._limit = statement_timeout + GRACE
        self._answers = Answers(reactor.seconds)
        self.is_alone = is_alone

    @property
    def clock(self) -> IReactorTime:
        """The reactor, for whoever waits."""
        clock: IReactorTime = self._reactor
        return clock

    @property
    def is_ready(self) -> bool:
        """A connection exists, free or in use."""
        return len(self._links) > 0

    def __len__(self) -> int:
        """How many connections there are, free or in use."""
        return len(self._links)

    @property
    def free(self) -> int:
        """How many of them nobody uses."""
        return self._links.free

    @property
    def waiting(self) -> int:
        """How many transactions wait for one."""
        return self._links.waiting

    async def start(self) -> None:
        """Begin to connect.  An absent database is looked for until it is there."""
        self._links.open()

    async def stop(self) -> None:
        """Let running transactions end, then close every connection."""
        await self._links.close(self._limit)

    def interact(self, work: Callable[[Transaction], Awaitable[T]]) -> Deferred[T]:
        """Run ``work`` in one transaction of its own.

        ``work`` may run several times, so it touches nothing but the database.

        :raises DatabaseUnavailable: no connection, or a lost one; nothing was done.
        :raises OutcomeUnknown: the connection broke at COMMIT.
        :raises psycopg2.Error: what the server refused.
        """
        return _detached(_available(self._interact(work)))

    def ask(
        self, sql: str, params: Parameters = (), read: Callable[[tuple[Any, ...]], Any] = tuple
    ) -> Deferred[list[Any]]:
        """The same as :meth:`query`, for what nearly every request asks: planned only once.

        If nobody else writes, what was just asked is not asked again.  Answered in
        milliseconds, so a silence of ``wait`` seconds means that the server hangs.

        :param sql: one of few constants.
        :param read: makes the value of a row that is answered, one that nobody changes.
        """
        statement = prepared(sql)
        values = statement.values(params)
        if self.is_alone and (rows := self._answers.find((statement.name, *values))) is not None:
            return succeed(rows)
        return _detached(_available(self._ask(statement, values, read)))

    def query(self, sql: str, params: Parameters = ()) -> Deferred[list[tuple[Any, ...]]]:
        """Answer the rows of one statement that only reads, in one round trip.

        Sent once more if its connection turns out to be stale.

        :raises DatabaseUnavailable: no connection, or a lost one.
        :raises psycopg2.Error: what the server refused, any writing included.
        """
        return _detached(_available(self._query(sql, params)))

    async def _interact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        with self._answers.writing():
            for attempt in range(1, ATTEMPTS):
                try:
                    return await self._transact(work)
                except (SerializationFailure, DeadlockDetected):
                    # By chance, so that two rivals do not meet again.
                    pause = random.uniform(0, 0.02 * attempt)  # noqa: S311  # no secret
                    await deferLater(self._reactor, pause)
            return await self._transact(work)

    async def _transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        link, _ = await self._first("BEGIN READ WRITE", (), self._wait)
        transaction = Transaction(link, self._limit)
        try:
            result = await work(transaction)
            if transaction.changes:
                await append(transaction, ORIGIN.get(), transaction.changes)
            await self._commit(link)
            return result
        except Exception:
            # The first error counts: a ROLLBACK that fails costs only the link.
            with suppress(Exception):
                if not link.is_idle:
                    await link.execute("ROLLBACK", limit=self._wait)
            raise
        finally:
            transaction.close()
            self._links.give_back(link)

    async def _commit(self, link: Link) -> None:
        if link.is_lost:
            raise LinkLost
        if not link.is_in_transaction:
            # PostgreSQL would answer COMMIT with a mere "ROLLBACK", and no error.
            raise InFailedSqlTransaction("work went on after a failed statement")
        try:
            await link.execute("COMMIT", limit=self._limit)
        except DatabaseUnavailable as error:
            if not link.is_lost:
                raise
            raise OutcomeUnknown(
                "The connection to the database broke at the last moment: "
                "the change may or may not have been made."
            ) from error

    async def _ask(
        self, statement: Prepared, values: list[Any], read: Callable[[tuple[Any, ...]], Any]
    ) -> list[Any]:
        keep = self._answers.asking((statement.name, *values))
        try:
            rows = await self._ask_once(statement, values)
        except _STALE:
            self._links.discard_idle()  # they are as old
            rows = await self._ask_once(statement, values)
        found = [read(row) for row in rows]
        keep(found)
        return found

    async def _ask_once(self, statement: Prepared, values: list[Any]) -> list[tuple[Any, ...]]:
        begun = self._reactor.seconds()
        link = await self._links.take()
        # Who has waited for a connection already is told hardly later than others.
        limit = max(self._wait - (self._reactor.seconds() - begun), self._wait / 3)
        known = statement.name in link.prepared
        call = statement.call if known else statement.introduction + statement.call
        try:
            rows = _rows(await link.execute(call, values, limit=limit))
            link.prepared.add(statement.name)
            return rows
        except Exception as error:
            # After a failure nobody knows whether the name is known there.
            if not known or isinstance(error, _STALE):
                link.shut()
            raise
        finally:
            self._links.give_back(link)

    async def _query(self, sql: str, params: Parameters) -> list[tuple[Any, ...]]:
        link, cursor = await self._first(sql, params, self._limit)
        try:
            return _rows(cursor)
        finally:
            self._links.give_back(link)

    async def _first(self, sql: str, params: Parameters, limit: float) -> tuple[Link, Any]:
        """Take a link and run its first statement; if the link is stale, on another."""
        link = await self._links.take()
        try:
            return link, await self._execute(link, sql, params, limit)
        except LinkLost:
            self._links.discard_idle()  # they are as old
        link = await self._links.take()
        return link, await self._execute(link, sql, params, limit)

    async def _execute(self, link: Link, sql: str, params: Parameters, limit: float) -> Any:
        try:
            return await link.execute(sql, params, limit=limit)
        except BaseException:
            self._links.give_back(link)
            raise


def _rows(cursor: Any) -> list[tuple[Any, ...]]:
    return list(cursor.fetchall()) if cursor.description else []


async def _available(work: Awaitable[T]) -> T:
    """Let the errors of a server that cannot work be DatabaseUnavailable."""
    try:
        return await work
    except LinkLost as error:
        raise DatabaseUnavailable(error.message) from error
    except (SerializationFailure, DeadlockDetected) as error:
        raise DatabaseUnavailable("The database is too busy; try again later.") from error
    except OperationalError as error:
        raise DatabaseUnavailable("The database cannot do this now.") from error


def _detached(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    return detached(Deferred.fromCoroutine(work), _log_late)


def _log_late(failure: Failure) -> None:
    if failure.check(RepomanError):
        _log.warn(
            "A transaction failed after its caller had gone: {why}", why=failure.getErrorMessage()
        )
    else:
        _log.failure("A transaction failed after its caller had gone", failure)
