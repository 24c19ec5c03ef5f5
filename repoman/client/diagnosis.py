"""Is everything in place that a client needs?  One check after the other, each with its remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from repoman.client.credentials import CredentialFiles, no_credential
from repoman.client.exchange import CONNECT_SECONDS, Exchange
from repoman.client.problems import in_words
from repoman.client.records import one
from repoman.client.renewal import RenewableTLS
from repoman.client.replies import decoded, header
from repoman.errors import ConnectionProblem, CredentialProblem, RepomanError, TrustUnreadable
from repoman.gsi.ca_directory import CADirectory, build, read_files
from repoman.gsi.credential import ClientCredential
from repoman.gsi.crl import why_useless
from repoman.gsi.dn import dn_text
from repoman.gsi.examination import why_early
from repoman.gsi.steps import finish

SOON = timedelta(hours=1)
"""A credential that ends so soon is worth a remark."""

SKEW = timedelta(seconds=60)
"""How far two clocks may be apart."""

MOST_LINES = 5
"""How many faults of one kind are told."""


@frozen
class Finding:
    """What a check has found.

    :ivar error: with what to do about it; ``None`` if all is well.
    """

    subject: str
    text: str
    error: RepomanError | None = None


@frozen
class Diagnosis:
    """What there is to check.

    :ivar find_credential: raises what is wrong with the choice.
    :ivar find_ca_directory: likewise.
    """

    reactor: Any
    host: str
    port: int
    find_credential: Callable[[], CredentialFiles | None]
    find_ca_directory: Callable[[], Path]

    async def run(self) -> AsyncIterator[Finding]:
        """Check everything that can be checked, in the order in which it is needed."""
        now = datetime.now(timezone.utc)
        credential = directory = None
        try:
            credential, text = read_credential(self.find_credential(), now)
            yield Finding("proxy", text)
        except RepomanError as error:
            yield Finding("proxy", "", error)
        try:
            place = self.find_ca_directory()
            authorities = finish(build(read_files(place)))
            yield authorities_finding(place, authorities)
            if authorities.authorities:
                directory = place
                yield crls_finding(authorities, now)
        except RepomanError as error:
            yield Finding("CA directory", "", error)
        try:
            await self._connect()
            yield Finding("server", f"{self.host}:{self.port} can be reached")
        except RepomanError as error:
            yield Finding("server", "", error)
            return
        if directory is not None:
            async for finding in self._talk(credential, directory):
                yield finding

    async def _connect(self) -> None:
        address = HostnameEndpoint(self.reactor, self.host, self.port, timeout=CONNECT_SECONDS)
        with in_words(f"{self.host}:{self.port}"):
            protocol: Any = await connectProtocol(address, Protocol())
        protocol.transport.abortConnection()

    async def _talk(
        self, credential: CredentialFiles | None, directory: Path
    ) -> AsyncIterator[Finding]:
        host = f"[{self.host}]" if ":" in self.host else self.host
        exchange = Exchange(
            self.reactor, f"https://{host}:{self.port}", RenewableTLS(credential, directory)
        )
        try:
            reply = await exchange.request("GET", "/api/whoami", params={"view": "full"})
            yield Finding("connection", f"the server proved to be {self.host}")
            yield clock_finding(header(reply, "Date"), datetime.now(timezone.utc))
        except RepomanError as error:
            yield Finding("connection", "", error)
            return
        try:
            user = one(decoded(reply, await exchange.body(reply)), "user_name")
            yield Finding("who am I", f"{user['user_name']}, {user['client_dn']}")
        except RepomanError as error:
            yield Finding("who am I", "", error)
        finally:
            await exchange.close()


def read_credential(files: CredentialFiles | None, now: datetime) -> tuple[CredentialFiles, str]:
    """A credential that is fit to be shown, and what there is to say about it.

    :raises CredentialProblem: it is not.
    """
    if files is None:
        raise no_credential()
    found = ClientCredential.read(files.certificate, files.key, now, files.owners)
    if early := why_early(found, now):
        raise CredentialProblem(early)
    left = found.not_after - now
    hours, minutes = divmod(int(left.total_seconds()) // 60, 60)
    soon = "; renew it soon with grid-proxy-init" if left < SOON else ""
    return files, f"{files}, valid for {hours} h {minutes} min{soon}"


def authorities_finding(place: Path, directory: CADirectory) -> Finding:
    """Whether the CAs can be used."""
    count = len(directory.authorities)
    if not count:
        error = TrustUnreadable(f"{place} holds no CA certificate; install your grid's CAs.")
        return Finding("CA directory", "", error)
    faults = [f for f in directory.faults if not _is_crl(f)]
    if faults:
        words = _some([f"{place}/{fault}" for fault in faults])
        return Finding("CA directory", "", TrustUnreadable(f"{words}; install these CAs anew."))
    return Finding("CA directory", f"{place}, {count} certificate authorities")


def crls_finding(directory: CADirectory, now: datetime) -> Finding:
    """Whether the CRLs that are there hold."""
    with_crls = [a for a in directory.authorities if a.crls]
    useless = [
        f"the CRL of {dn_text(a.certificate.subject)} {why}"
        for a in with_crls
        if (why := why_useless(a.crls, now))
    ]
    if useless:
        return Finding("CRLs", "", TrustUnreadable(f"{_some(useless)}; run fetch-crl."))
    count, all_of_them = len(with_crls), len(directory.authorities)
    advice = "" if count == all_of_them else "; fetch-crl gets those that are missing"
    return Finding("CRLs", f"{count} of {all_of_them} authorities have one that holds{advice}")


def clock_finding(date: str, now: datetime) -> Finding:
    """Whether this machine's clock agrees with the server's.

    :param date: the reply's ``Date`` header.
    """
    try:
        apart = now - parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return Finding("clock", "the server does not tell its time")
    if abs(apart) <= SKEW:
        return Finding("clock", "agrees with the server's")
    ahead = "ahead of" if apart > timedelta(0) else "behind"
    return Finding(
        "clock", "",
        ConnectionProblem(
            f"The clock of this machine is {abs(apart).total_seconds():.0f} s {ahead} the"
            " server's; set the wrong one, for example with timedatectl set-ntp true."
        ),
    )  # fmt: skip


def _is_crl(fault: str) -> bool:
    name = fault.partition(" ")[0]
    return name.rpartition(".")[2].startswith("r")


def _some(lines: list[str]) -> str:
    more = len(lines) - MOST_LINES
    return "; ".join(lines[:MOST_LINES]) + (f"; and {more} more" if more > 0 else "")
