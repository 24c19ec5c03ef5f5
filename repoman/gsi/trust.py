"""Everything that a verified chain is judged by, as one value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Final

from attrs import evolve, field, frozen
from cryptography import x509

from repoman.errors import CredentialRefused
from repoman.gsi.ca_directory import Authority, CADirectory
from repoman.gsi.chain import CertificatePath, Link, divide, moment, read
from repoman.gsi.crl import FOREVER, TELL, Mode, check_revocation, why_narrow, why_useless
from repoman.gsi.dn import dn_text
from repoman.gsi.proxy import ProxyRules, identity_of, or_refuse
from repoman.gsi.quietly import quietly
from repoman.model import Identity

NO_CERTIFICATE: Final = (
    "You showed no certificate: make a proxy with grid-proxy-init and show it to the server."
)
"""Why a connection without a certificate is nobody's."""


REMEMBERED: Final = 500
"""How many chains that were judged well are kept, until the next load."""

LARGEST_REMEMBERED: Final = 2**14
"""The largest of them, in bytes."""


@frozen(eq=False)
class Peer:
    """What is known about the other end of a connection.

    :ivar identity: ``None`` for nobody in particular.
    :ivar refusal: why it is nobody, ready for a 403; empty if it is somebody.
    :ivar generation: of the trust by which it was judged.
    :ivar chain: as OpenSSL verified it, leaf first; empty without a certificate.
    :ivar waived: OpenSSL's (error, depth) pairs that the handshake put off.
    :ivar holds_until: judge again then (aware, UTC): the identity has ended, or a CRL.
    """

    identity: Identity | None = None
    refusal: str = ""
    generation: int = 0
    chain: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    waived: frozenset[tuple[int, int]] = frozenset()
    holds_until: datetime = FOREVER


@frozen(eq=False)
class Trust:
    """The CA directory and the operator's choices.

    :ivar crl: how much is demanded of CRLs.
    :ivar signing_policy: how much is demanded of signing policies.
    :ivar generation: which of several, one after the other.
    :ivar remedy: what is to be done about a CRL that does not hold.
    """

    directory: CADirectory = field(factory=CADirectory)
    crl: Mode = "if-present"
    signing_policy: Mode = "if-present"
    proxies: ProxyRules = field(factory=ProxyRules)
    generation: int = 0
    remedy: str = TELL
    _welcome: dict[bytes, Peer] = field(factory=dict, init=False, repr=False)

    def judge(
        self,
        chain: Sequence[x509.Certificate],
        now: datetime,
        waived: Collection[tuple[int, int]] = (),
    ) -> Peer:
        """Find out whom a chain proves, by these CAs, CRLs and policies.

        :param chain: as OpenSSL verified it, leaf first.
        :param now: aware, UTC.
        :param waived: OpenSSL's (error, depth) pairs that the handshake put off.
        """
        shown = (tuple(chain), frozenset(waived))
        # The signature only finds the entry, at less cost than a hash of all; then all must agree.
        known = self._welcome.get(chain[0].signature) if chain else None
        if known and (known.chain, known.waived) == shown and now <= known.holds_until:
            return known
        try:
            identity, ends = or_refuse(chain, lambda: self._judge(divide(chain), now, waived))
        except CredentialRefused as refusal:
            return Peer(None, refusal.message, self.generation, *shown)
        peer = Peer(identity, "", self.generation, *shown, ends)
        self._remember(peer)
        return peer

    def _remember(self, peer: Peer) -> None:
        # People come again and again with one proxy, and it costs as much as a handshake
        # to judge it.  Only who was let in is remembered: strangers fill no memory.
        if len(self._welcome) >= REMEMBERED:
            self._welcome.clear()
        if sum(len(c.tbs_certificate_bytes) for c in peer.chain) <= LARGEST_REMEMBERED:
            self._welcome[peer.chain[0].signature] = peer

    def _judge(
        self, path: CertificatePath, now: datetime, waived: Collection[tuple[int, int]]
    ) -> tuple[Identity, datetime]:
        identity = identity_of(path, now, self.proxies, waived)
        until = min(identity.not_after, self.check_authorities(path, now))
        return self._anchored(identity, path), until

    def _anchored(self, identity: Identity, path: CertificatePath) -> Identity:
        """The identity with what the directory knows of its issuer and of those above."""
        issuer, *above = path.authorities
        known = self.directory.holds(issuer.certificate)
        for link in above:
            if self.directory.holds(link.certificate):
                # As the directory calls it: a cross-signed certificate may write it otherwise.
                anchor = dn_text(self.directory.find(link.certificate).certificate.subject)
                return evolve(identity, anchor=anchor, issuer_is_known=known)
        return evolve(identity, anchor=identity.issuer, issuer_is_known=known)

    def check_authorities(self, path: CertificatePath, now: datetime) -> datetime:
        """Check that the CAs of a verified path are trusted, and stand by what they issued.

        :returns: until when that holds (aware, UTC).
        :raises CredentialRefused: one is not, may not, or revoked it.
        """
        root = path.authorities[-1]
        if not self.directory.trusts(root.certificate):
            raise CredentialRefused(f"The certificate authority {root.dn} is not trusted here.")
        self.directory.check_names(path.authorities)
        self._check_names(path)

        def check(certificate: Link, issuer: Link) -> datetime:
            crls = self.directory.find(issuer.certificate).crls
            return check_revocation(certificate, issuer, crls, self.crl, now, self.remedy)

        # The root is its own issuer: its CRL may revoke it, and OpenSSL asks for it too.
        return min(check(*pair) for pair in [*path.certified, (root, root)])

    def _check_names(self, path: CertificatePath) -> None:
        if self.signing_policy == "off":
            return
        for depth, (certificate, issuer) in enumerate(path.certified):
            # A server's certificate may have no DN (a user's has one): nothing that a policy
            # could speak of, and no more than a CA can issue under a DN that it may.
            if certificate.name and not self._may_issue(path.authorities[depth:], certificate.dn):
                raise CredentialRefused(
                    f"The certificate authority {issuer.dn} may not issue {certificate.dn}:"
                    " its signing policy does not allow it."
                )

    def _may_issue(self, authorities: Sequence[Link], subject: str) -> bool:
        """The first authority may issue the DN; the others are those above it."""
        known = [self.directory.find(authority.certificate) for authority in authorities]
        if self.signing_policy == "require" and not known[0].policies:
            return False
        # A sub-CA without a policy is held to that of the next CA above it: else
        # every CA could give itself a sub-CA that may issue any name.
        for link, authority in zip(authorities, known, strict=True):
            if authority.policy_faults:
                return False
            if authority.policies:
                return all(policy.allows(link.dn, subject) for policy in authority.policies)
        return True

    @quietly()
    def faults(self, now: datetime) -> list[str]:
        """What an operator should mend, a line each.

        :param now: aware, UTC.
        """
        found = list(self.directory.faults)
        for authority in self.directory.authorities:
            found += self._faults_of(authority, now)
        return found

    def _faults_of(self, authority: Authority, now: datetime) -> Iterator[str]:
        certificate = authority.certificate
        name = f"{authority.names[0]} ({authority.dn})"
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if ends < now:
            yield f"{name} expired at {moment(ends)}."
        if begins > now:
            yield f"{name} is not valid before {moment(begins)}."
        if certificate.version is x509.Version.v3 and not read(certificate).is_authority:
            yield f"{name} is no authority's certificate (CA:TRUE is not in it)."
        if self.crl != "off" and authority.crls:
            files = ", ".join(file.name for file in authority.crls)
            if why := why_useless(authority.crls, now):
                yield f"The CRL of {name} in {files} {why}: run fetch-crl."
            elif why := why_narrow(authority.crls, read(certificate)):
                yield f"The CRL of {name} in {files} {why}: its users are refused."
        if self.crl == "require" and not authority.crls:
            yield f"{name} has no CRL: run fetch-crl."
        if self.signing_policy == "require" and not authority.policies:
            yield f"{name} has no signing policy."
