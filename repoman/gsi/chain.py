"""A verified chain, divided by position into proxies, end entity and authorities."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from repoman.errors import CredentialRefused
from repoman.gsi.dn import COMMON_NAME, Rdn, likeness, printed, rdns
from repoman.gsi.proxycertinfo import CLAIMS, OLD_NAMES

_NAMES_OF_OLD_PROXIES = tuple(((COMMON_NAME, name),) for name in OLD_NAMES)


@frozen(eq=False)
class Link:
    """A certificate of a chain, read once.

    :ivar name: its subject's RDNs, root first.
    :ivar extensions: by OID.
    """

    certificate: x509.Certificate
    name: tuple[Rdn, ...]
    extensions: dict[x509.ObjectIdentifier, x509.Extension[Any]]

    @property
    def dn(self) -> str:
        """Its subject's DN.

        :raises CredentialRefused: it is too long.
        """
        return printed(self.name)

    @property
    def is_authority(self) -> bool:
        """It says that it is a CA's."""
        constraints = self.extension(ExtensionOID.BASIC_CONSTRAINTS)
        return constraints is not None and bool(constraints.ca)

    @property
    def is_root(self) -> bool:
        """It names itself as its issuer."""
        return self.certificate.subject == self.certificate.issuer

    def extension(self, oid: x509.ObjectIdentifier) -> Any:
        """An extension's value, or ``None``."""
        found = self.extensions.get(oid)
        return None if found is None else found.value


def read(certificate: x509.Certificate) -> Link:
    """Read a certificate; any oddity in it raises.

    :raises CredentialRefused: its name could be mistaken for another.
    """
    return Link(
        certificate,
        rdns(certificate.subject),
        {extension.oid: extension for extension in certificate.extensions},
    )


@frozen(eq=False)
class CertificatePath:
    """Who signed whom.

    :ivar proxies: from the one that the end entity signed to the one that the
        peer holds.
    :ivar end_entity: what a CA gave to a person or a host.
    :ivar authorities: from the end entity's issuer to the root, never empty.
    """

    proxies: tuple[Link, ...]
    end_entity: Link
    authorities: tuple[Link, ...]

    @property
    def delegated(self) -> list[tuple[Link, Link]]:
        """Each proxy with its issuer, from the end entity down."""
        return list(zip(self.proxies, (self.end_entity, *self.proxies), strict=False))

    @property
    def certified(self) -> list[tuple[Link, Link]]:
        """The end entity and each sub-CA with its issuer."""
        return list(zip((self.end_entity, *self.authorities), self.authorities, strict=False))


def divide(chain: Sequence[x509.Certificate]) -> CertificatePath:
    """Divide a verified chain, leaf first.

    The end entity is the first certificate below the authorities, counted
    from the root.  What a certificate is called plays no part, except that a
    CA may not issue what looks like a proxy.

    :raises CredentialRefused: there is no end entity, or it claims to be a proxy; or a
        certificate is of a version without extensions, and has some.
    """
    links = [read(certificate) for certificate in chain]
    _check_versions(links[:-1])
    position = len(links) - 2
    while position >= 0 and links[position].is_authority:
        position -= 1
    if position < 0:
        raise CredentialRefused("A certificate authority's certificate logs nobody in.")
    end_entity = links[position]
    if end_entity.extensions.keys() & CLAIMS:
        raise CredentialRefused("A certificate authority signed a proxy certificate.")
    if end_entity.name[-1] in _NAMES_OF_OLD_PROXIES:
        raise CredentialRefused("A certificate authority signed what is named like a proxy.")
    path = CertificatePath(
        tuple(reversed(links[:position])), end_entity, tuple(links[position + 1 :])
    )
    _check_issuers(path)
    return path


def _check_versions(links: Sequence[Link]) -> None:
    """Check that only version 3 has extensions (RFC 5280, 4.1.2.1); OpenSSL believes them all.

    A root is what the operator says that it is, so its own certificate is not asked.
    """
    for link in links:
        if link.extensions and link.certificate.version is not x509.Version.v3:
            raise CredentialRefused(
                f"The certificate of {link.dn} has extensions, which its version"
                f" ({link.certificate.version.name}) does not have; get one of version 3."
            )


def _check_issuers(path: CertificatePath) -> None:
    """Check that a certificate calls its issuer what the issuer calls itself.

    OpenSSL compares these too, but reads some strings as Latin-1 where we read UTF-8.
    """
    for link, issuer in path.certified:
        if likeness(rdns(link.certificate.issuer)) != likeness(issuer.name):
            raise CredentialRefused(
                f"The certificate of {link.dn} calls its issuer by another name than {issuer.dn}."
            )


def check_validity(path: CertificatePath, now: datetime) -> datetime:
    """Check that every certificate is valid; answer when the first one ends.

    :param now: aware, UTC.
    :raises CredentialRefused: one is not, with what to do about it.
    """
    links = (*path.authorities, path.end_entity, *path.proxies)
    for link in links:
        begins, ends = link.certificate.not_valid_before_utc, link.certificate.not_valid_after_utc
        if now > ends:
            whose, advice = _owner(path, link)
            raise CredentialRefused(f"{whose} expired at {moment(ends)}; {advice}.")
        if now < begins:
            whose, _ = _owner(path, link)
            raise CredentialRefused(
                f"{whose} is not valid before {moment(begins)}, and it is {moment(now)} here;"
                " check your clock."
            )
    return min(link.certificate.not_valid_after_utc for link in links)


def _owner(path: CertificatePath, link: Link) -> tuple[str, str]:
    if link is path.end_entity:
        return "Your certificate", "get a new one from your certificate authority"
    if link in path.proxies:
        return "Your proxy", "make a new one with grid-proxy-init"
    return f"The certificate authority {link.dn}", "tell its administrators"


def moment(time: datetime) -> str:
    """Print a time (aware, UTC) for a person."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
