"""TLS with grid credentials, both ends: the only module that touches OpenSSL.

OpenSSL verifies the path in the handshake; :mod:`repoman.gsi` then finds out
whom the verified chain proves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from attrs import evolve, frozen
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509Store, X509StoreFlags
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from repoman.bounded_log import BoundedLog
from repoman.ciphers import cipher_lists
from repoman.errors import CredentialProblem, TrustUnreadable
from repoman.gsi.advice import VERIFY_ERRORS, own_error, reason_of
from repoman.gsi.ca_directory import CADirectory, build, read_authorities
from repoman.gsi.ca_files import fingerprint, read_files
from repoman.gsi.credential import ClientCredential, Credential, read_host_credential
from repoman.gsi.crl import Mode
from repoman.gsi.dn import shown_name
from repoman.gsi.encoding import encoding_fault
from repoman.gsi.host import host_faults, host_names, is_address, proves_name, refusal_of_server
from repoman.gsi.proxy import ProxyRules
from repoman.gsi.quietly import quietly
from repoman.gsi.steps import Steps, finish, finish_gently
from repoman.gsi.trust import NO_CERTIFICATE, Peer, Trust
from repoman.gsi.waivers import WAIVABLE
from repoman.tls_store import fill_store

__all__ = ["NO_CERTIFICATE", "ClientTLS", "Peer", "ServerTLS", "TlsSettings", "reason_of"]

VERIFY_DEPTH: Final = 12
"""The longest chain; OpenSSL knows no limit of its own."""

OPTIONS = SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
"""What no connection of ours may do."""
_NOT_DONE = (SSL.WantReadError, SSL.WantWriteError)


@frozen
class TlsSettings:
    """Section ``[tls]`` of the configuration."""

    certificate: Path
    key: Path
    ca_directory: Path
    crl: Mode = "if-present"
    signing_policy: Mode = "if-present"
    legacy_proxies: bool = False


class _Connection(SSL.Connection):
    """A connection whose handshake fails with words, and in no way that surprises Twisted.

    :ivar fault: why the verification failed.
    """

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        self.fault = ""

    @quietly()
    def do_handshake(self) -> None:
        try:
            super().do_handshake()
            self.completed()
        except _NOT_DONE:
            raise
        except Exception as error:
            # What a callback raised comes out here too, and Twisted would log a traceback.
            known = isinstance(error, SSL.Error)
            what = reason_of(error) if known else f"internal error ({type(error).__name__})"
            why = self.fault or what
            self.failed(why)
            if known and not self.fault:
                raise
            raise SSL.Error(own_error(why)) from None

    def completed(self) -> None:
        """The handshake is complete; may still raise SSL.Error."""

    def failed(self, why: str) -> None:
        """The handshake has failed."""


class _ServerConnection(_Connection):
    """A connection that remembers its verification.

    :ivar waived: (error, depth) pairs that were put off.
    """

    def __init__(self, context: SSL.Context, say: Callable[[str, Any], None]) -> None:
        super().__init__(context)
        self.waived: set[tuple[int, int]] = set()
        self._say = say

    def failed(self, why: str) -> None:
        self._say(f"TLS handshake failed: {why}", self.get_app_data())


def _verify_client(connection: Any, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """OpenSSL asks about each certificate.  Without the chain nothing can be forgiven here."""
    if ok:
        return True
    if error in WAIVABLE:
        connection.waived.add((error, depth))
        return True
    why = VERIFY_ERRORS.get(error, f"verification error {error}")
    connection.fault = f"{why}: {shown_name(certificate.to_cryptography)} (depth {depth})"
    return False


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """The server's end.  Call :meth:`load` first, and :meth:`reload` when files have changed.

    :param clock: answers the time (aware, UTC).
    :ivar host: the host certificate with its key; ``None`` before the first load.
    :ivar host_names: the names in it, without wildcards, in its order.
    """

    def __init__(self, settings: TlsSettings, clock: Callable[[], datetime]) -> None:
        self.host_names: tuple[str, ...] = ()
        self.host: Credential | None = None
        self._settings = settings
        self._clock = clock
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._trust = Trust()
        self._loads = 0
        self._seen: object = None
        self._strangers = BoundedLog(clock, Logger())

    @property
    def generation(self) -> int:
        """Which load is in use; 0 before the first."""
        return self._trust.generation

    @property
    def directory(self) -> CADirectory:
        """The CAs in use."""
        return self._trust.directory

    def changed(self) -> bool:
        """Some file is not as it was when it was loaded."""
        return self._seen != self._fingerprint()

    def load(self) -> list[str]:
        """Read CAs, CRLs, policies and the host certificate, and use them from now on.

        :returns: a line for each thing that an operator should mend.
        :raises TrustUnreadable: what was loaded before stays in use.
        """
        return finish(self._loading())

    async def reload(self, reactor: Any) -> list[str]:
        """Do as :meth:`load`, but let ``reactor`` serve others meanwhile: CRLs can be large."""
        return await finish_gently(self._loading(), lambda: deferLater(reactor, 0))

    def _loading(self) -> Steps[list[str]]:
        self._loads += 1
        number, seen, settings = self._loads, self._fingerprint(), self._settings
        host = read_host_credential(settings.certificate, settings.key)
        directory = yield from build(read_files(settings.ca_directory))
        context, unused = yield from _server_context(host, directory, settings)
        directory = evolve(directory, faults=(*directory.faults, *unused))
        rules = ProxyRules(settings.legacy_proxies)
        trust = Trust(directory, settings.crl, settings.signing_policy, rules, number)
        if number > self.generation:
            # A used Context may not be changed, and never reads a CRL again: hence a new one.
            self._context, self._trust, self._seen = context, trust, seen
            self.host, self.host_names = host, host_names(host.certificate)
        return self.faults()

    def faults(self) -> list[str]:
        """What an operator should mend now, a line each: CRLs and certificates age."""
        if self.host is None:
            return []
        now, settings = self._clock(), self._settings
        host = host_faults(self.host, settings.certificate, settings.key, now)
        return [*self._trust.faults(now), *host]

    def _fingerprint(self) -> object:
        settings = self._settings
        return fingerprint([settings.ca_directory, settings.certificate, settings.key])

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Make a fresh connection, by the newest trust."""
        return _ServerConnection(self._context, self._say)

    def peer(self, connection: SSL.Connection) -> Peer:
        """Judge a connection whose handshake is complete.  Never raises."""
        peer = self._safely(lambda: self._judge_connection(connection))
        if peer.refusal and peer.refusal != NO_CERTIFICATE:
            self._say(f"A client was refused: {peer.refusal}", connection.get_app_data())
        return peer

    def current(self, peer: Peer) -> Peer:
        """Judge again, at each request: an end has passed, or trust was loaded anew.

        Never raises.
        """
        if not peer.chain:
            return peer
        if peer.generation == self.generation and self._clock() <= peer.holds_until:
            return peer
        now = self._safely(lambda: self._trust.judge(peer.chain, self._clock(), peer.waived))
        if peer.identity is not None and now.refusal:
            self._strangers.say(f"A client is refused from now on: {now.refusal}")
        return now

    def _safely(self, judge: Callable[[], Peer]) -> Peer:
        try:
            with quietly():  # of odd certificates, once for each: strangers make them
                return judge()
        except Exception as error:  # what OpenSSL reads, and the stricter reader does not
            return Peer(None, f"Your certificate chain {encoding_fault(error)}.")

    def _judge_connection(self, connection: SSL.Connection) -> Peer:
        # Not get_peer_cert_chain(), which is whatever the client sent.
        chain = connection.get_verified_chain(as_cryptography=True)
        if not chain and connection.get_peer_certificate() is None:
            return Peer(None, NO_CERTIFICATE)
        if not chain or not isinstance(connection, _ServerConnection):
            return Peer(None, "Your certificate was not verified on this connection.")
        return self._trust.judge(chain, self._clock(), connection.waived)

    def _say(self, line: str, protocol: Any) -> None:
        try:
            address = str(protocol.transport.getPeer().host)
        except Exception:
            address = "unknown address"
        self._strangers.say(f"{line} [{address}]")


def _context(
    method: int, credential: Credential | None, place: Path, directory: CADirectory, flags: int
) -> Steps[tuple[SSL.Context, list[str]]]:
    if not directory.authorities:
        broken = f" ({directory.faults[0]})" if directory.faults else ""
        raise TrustUnreadable(
            f"The CA directory {place} holds no certificate authority{broken}: install your grid's"
            " CA certificates there (files HASH.0), or name another directory."
        )
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(OPTIONS | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    tls12, tls13 = cipher_lists()
    context.set_cipher_list(tls12)
    context.set_tls13_ciphersuites(tls13)
    context.set_verify_depth(VERIFY_DEPTH)
    if credential is not None:
        context.use_certificate(credential.certificate)
        context.use_privatekey(credential.key)
        context.check_privatekey()  # or OpenSSL shows nothing, and says nothing
        for certificate in credential.chain:
            context.add_extra_chain_cert(certificate)
    store = context.get_cert_store() or X509Store()
    store.set_flags(flags)
    return context, (yield from fill_store(store, directory))


def _server_context(
    host: Credential, directory: CADirectory, settings: TlsSettings
) -> Steps[tuple[SSL.Context, list[str]]]:
    flags = X509StoreFlags.ALLOW_PROXY_CERTS
    if settings.crl != "off":
        # CRL_CHECK alone looks at the leaf only: behind a proxy that is nothing at all.
        flags |= X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL
    try:
        context, unused = yield from _context(
            SSL.TLS_SERVER_METHOD, host, settings.ca_directory, directory, flags
        )
    except SSL.Error as error:
        raise TrustUnreadable(
            f"OpenSSL cannot use {settings.certificate} with {settings.key}: {reason_of(error)}."
        ) from None
    # No FAIL_IF_NO_PEER_CERT: public images are for everybody.  No list of
    # client CAs either: a proxy's issuer, a user, is never in it.
    context.set_verify(SSL.VERIFY_PEER, _verify_client)
    return context, unused


_Refuse = Callable[[Sequence[x509.Certificate]], str]


class _ClientConnection(_Connection):
    """A connection that knows the server before it says a word.

    :ivar host: the name that the server must prove.
    :ivar proved: it has done so.
    """

    def __init__(self, context: SSL.Context, host: str, refuse: _Refuse) -> None:
        super().__init__(context)
        self.host = host
        self.proved = False
        self._refuse = refuse

    def completed(self) -> None:
        if not self.proved:
            raise SSL.Error(own_error(f"the server did not prove to be {self.host}"))
        refusal = self._refuse(self.get_verified_chain(as_cryptography=True) or []).rstrip(".")
        if refusal:
            raise SSL.Error(own_error(f"the server's certificate was refused: {refusal}"))


def verify_server(connection: Any, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """OpenSSL asks about each certificate; the last must be for the server's name."""
    if not ok:
        why = VERIFY_ERRORS.get(error, f"verification error {error}")
        connection.fault = f"the server's certificate was refused: {why}"
    elif depth == 0:
        connection.proved = proves_name(certificate.to_cryptography(), connection.host)
        if not connection.proved:
            connection.fault = f"the server's certificate is not for {connection.host}"
            return False
    return bool(ok)


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class ClientCreator:
    """Makes connections to one server, which must prove its name."""

    context: SSL.Context
    host: str
    refuse: _Refuse

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """Make a fresh connection."""
        # Without the dot that ends an absolute name: none is sent (RFC 6066, 3) or certified.
        host = self.host.removesuffix(".")
        connection = _ClientConnection(self.context, host, self.refuse)
        if not is_address(host):
            connection.set_tlsext_host_name(host.encode("ascii"))
        return connection


@implementer(IPolicyForHTTPS)
class ClientTLS:
    """The client's end, for the agents of Twisted and treq.

    The server's certificate and its host name are always verified, against the
    CAs, the CRLs that are there, and the signing policies that are there.

    :param credential: to show; ``None`` to stay anonymous.
    :raises TrustUnreadable: there is no CA to trust.
    :raises CredentialProblem: OpenSSL does not take the credential.
    """

    def __init__(
        self,
        credential: ClientCredential | None,
        ca_directory: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._place = ca_directory
        self._clock = clock
        self._authorities = read_authorities(ca_directory)
        shown = credential.credential if credential else None
        try:
            self._context, _ = finish(
                _context(SSL.TLS_CLIENT_METHOD, shown, ca_directory, self._authorities, 0)
            )
        except SSL.Error as error:
            raise CredentialProblem(
                f"OpenSSL cannot use {credential.path if credential else ca_directory}"
                f" ({reason_of(error)}); make a new one with grid-proxy-init -bits 2048."
            ) from None
        self._context.set_verify(SSL.VERIFY_PEER, verify_server)

    def creatorForNetloc(self, hostname: bytes, port: int) -> ClientCreator:
        """Make connections to one server."""
        return ClientCreator(self._context, hostname.decode("ascii"), self._refusal)

    def _refusal(self, chain: Sequence[x509.Certificate]) -> str:
        return refusal_of_server(chain, self._place, self._authorities, self._clock())
