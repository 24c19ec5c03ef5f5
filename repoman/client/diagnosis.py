"""Is everything in place that a client needs?  One check after the other, each with its remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from repoman.client.credentials import CredentialFiles, no_credential
from repoman.client.exchange import CONNECT_SECONDS, Exchange
from repoman.client.problems import in_words
from repoman.client.records import one
from repoman.client.renewal import RenewableTLS
from repoman.client.replies import decoded, header
from repoman.errors import ConnectionProblem, CredentialProblem, RepomanError, TrustUnreadable
from repoman.gsi.ca_directory import CADirectory, build, files_about
from repoman.gsi.ca_files import read_files
from repoman.gsi.credential import ClientCredential
from repoman.gsi.crl import why_useless
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
    :ivar note: what is wrong too, but no trouble of this user's; mostly empty.
    """

    subject: str
    text: str
    error: RepomanError | None = None
    note: str = ""


@frozen
class Diagnosis:
    """What there is to check.

    :ivar read_settings: raises what is wrong with the configuration.
    :ivar find_server: its name and port; raises what is wrong with the choice.
    :ivar find_credential: likewise.
    :ivar find_ca_directory: likewise.
    """

    reactor: Any
    read_settings: Callable[[], object]
    find_server: Callable[[], tuple[str, int]]
    find_credential: Callable[[], CredentialFiles | None]
    find_ca_directory: Callable[[], Path]

    async def run(self) -> AsyncIterator[Finding]:
        """Check everything that can be checked, in the order in which it is needed."""
        now = datetime.now(timezone.utc)
        credential = directory = None
        try:
            self.read_settings()
        except RepomanError as error:
            yield Finding("configuration", "", error)
        try:
            credential, text = read_credential(self.find_credential(), now)
            yield Finding("proxy", text)
        except Exception as error:  # files raise anything, and the other checks are made
            yield Finding("proxy", "", _in_words(error))
        try:
            place = self.find_ca_directory()
            files = read_files(place)
            authorities = finish(build(files))
            own = finish(build(files_about(self._shown(), files, authorities)))
            yield authorities_finding(place, authorities, own)
            if authorities.authorities:
                directory = place
                yield crls_finding(authorities, own, now)
        except Exception as error:
            yield Finding("CA directory", "", _in_words(error))
        try:
            host, port = self.find_server()
            await self._connect(host, port)
            yield Finding("server", f"{host}:{port} can be reached")
        except RepomanError as error:
            yield Finding("server", "", error)
            return
        if directory is not None:
            async for finding in self._talk(host, port, credential, directory):
                yield finding

    def _shown(self) -> Sequence[x509.Certificate]:
        """The certificates of the user's file; none if it is not fit to be shown."""
        try:
            if (files := self.find_credential()) is None:
                return ()
            found = ClientCredential.read(files.certificate, files.key, owners=files.owners)
        except RepomanError:
            return ()
        return found.credential.certificate, *found.credential.chain

    async def _connect(self, host: str, port: int) -> None:
        address = HostnameEndpoint(self.reactor, host, port, timeout=CONNECT_SECONDS)
        with in_words(f"{host}:{port}"):
            protocol: Any = await connectProtocol(address, Protocol())
        protocol.transport.abortConnection()

    async def _talk(
        self, host: str, port: int, credential: CredentialFiles | None, directory: Path
    ) -> AsyncIterator[Finding]:
        place = f"[{host}]" if ":" in host else host
        try:
            tls = RenewableTLS(credential, directory)
            exchange = Exchange(self.reactor, f"https://{place}:{port}", tls)
            reply = await exchange.request("GET", "/api/whoami", params={"view": "full"})
            yield Finding("connection", f"the server proved to be {host}")
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


def _in_words(error: Exception) -> RepomanError:
    if isinstance(error, RepomanError):
        return error
    return RepomanError(f"It could not be checked ({type(error).__name__}).")


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


def authorities_finding(place: Path, directory: CADirectory, own: CADirectory) -> Finding:
    """Whether the CAs can be used.

    :param own: what of the directory matters to the user's certificate.
    """
    count = len(directory.authorities)
    if not count:
        error = TrustUnreadable(f"{place} holds no CA certificate; install your grid's CAs.")
        return Finding("CA directory", "", error)
    faults = [f for f in directory.faults if not _is_crl(f)]
    mine = [f"{place}/{fault}" for fault in faults if fault in own.faults]
    note = _some([f"{place}/{fault}" for fault in faults if fault not in own.faults])
    if mine:
        error = TrustUnreadable(f"{_some(mine)}; install these CAs anew.")
        return Finding("CA directory", "", error, note)
    return Finding("CA directory", f"{place}, {count} certificate authorities", note=note)


def crls_finding(directory: CADirectory, own: CADirectory, now: datetime) -> Finding:
    """Whether the CRLs that are there hold.

    :param own: what of the directory matters to the user's certificate.
    """
    with_crls = [a for a in directory.authorities if a.crls]
    useless = {a: why for a in with_crls if (why := why_useless(a.crls, now))}
    lines = {a: f"the CRL of {a.dn} {why}" for a, why in useless.items()}
    mine = [line for a, line in lines.items() if own.trusts(a.certificate)]
    note = _some([line for a, line in lines.items() if not own.trusts(a.certificate)])
    if mine:
        error = TrustUnreadable(f"{_some(mine)}; run fetch-crl.")
        return Finding("CRLs", "", error, note)
    count, all_of_them = len(with_crls) - len(useless), len(directory.authorities)
    advice = "" if count == all_of_them else "; fetch-crl gets those that are missing"
    text = f"{count} of {all_of_them} authorities have one that holds{advice}"
    return Finding("CRLs", text, note=note)


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
