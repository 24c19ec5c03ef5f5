"""A verified chain, divided by position into proxies, end entity and authorities."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from attrs import frozen
from cryptography import x509

from repoman.errors import CredentialRefused
from repoman.gsi.dn import COMMON_NAME, dn_text, rdns
from repoman.gsi.proxycertinfo import claims_to_be_proxy

_NAMES_OF_OLD_PROXIES = (((COMMON_NAME, "proxy"),), ((COMMON_NAME, "limited proxy"),))


@frozen
class CertificatePath:
    """Who signed whom.

    :ivar proxies: from the one that the end entity signed to the one that the
        peer holds.
    :ivar end_entity: what a CA gave to a person or a host.
    :ivar authorities: from the end entity's issuer to the root, never empty.
    """

    proxies: tuple[x509.Certificate, ...]
    end_entity: x509.Certificate
    authorities: tuple[x509.Certificate, ...]

    @property
    def delegated(self) -> list[tuple[x509.Certificate, x509.Certificate]]:
        """Each proxy with its issuer, from the end entity down."""
        return list(zip(self.proxies, (self.end_entity, *self.proxies), strict=False))

    @property
    def certified(self) -> list[tuple[x509.Certificate, x509.Certificate]]:
        """The end entity and each sub-CA with its issuer."""
        return list(zip((self.end_entity, *self.authorities), self.authorities, strict=False))


def divide(chain: Sequence[x509.Certificate]) -> CertificatePath:
    """Divide a verified chain, leaf first.

    The end entity is the first certificate below the authorities, counted
    from the root.  What a certificate is called plays no part, except that a
    CA may not issue what looks like a proxy.

    :raises CredentialRefused: there is no end entity, or it claims to be a proxy.
    """
    position = len(chain) - 2
    while position >= 0 and is_authority(chain[position]):
        position -= 1
    if position < 0:
        raise CredentialRefused("A certificate authority's certificate logs nobody in.")
    end_entity = chain[position]
    if claims_to_be_proxy(end_entity):
        raise CredentialRefused("A certificate authority signed a proxy certificate.")
    if rdns(end_entity.subject)[-1] in _NAMES_OF_OLD_PROXIES:
        raise CredentialRefused("A certificate authority signed what is named like a proxy.")
    return CertificatePath(
        tuple(reversed(chain[:position])), end_entity, tuple(chain[position + 1 :])
    )


def is_authority(certificate: x509.Certificate) -> bool:
    """The certificate says that it is a CA's."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return constraints.value.ca


def check_validity(path: CertificatePath, now: datetime) -> datetime:
    """Check that every certificate is valid; answer when the first one ends.

    :param now: aware, UTC.
    :raises CredentialRefused: one is not, with what to do about it.
    """
    certificates = (*path.authorities, path.end_entity, *path.proxies)
    for certificate in certificates:
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        whose, advice = _owner(path, certificate)
        if now > ends:
            raise CredentialRefused(f"{whose} expired at {moment(ends)}; {advice}.")
        if now < begins:
            raise CredentialRefused(
                f"{whose} is not valid before {moment(begins)}, and it is {moment(now)} here;"
                " check your clock."
            )
    return min(certificate.not_valid_after_utc for certificate in certificates)


def _owner(path: CertificatePath, certificate: x509.Certificate) -> tuple[str, str]:
    if certificate is path.end_entity:
        return "Your certificate", "get a new one from your certificate authority"
    if certificate in path.proxies:
        return "Your proxy", "make a new one with grid-proxy-init"
    return f"The certificate authority {dn_text(certificate.subject)}", "tell its administrators"


def moment(time: datetime) -> str:
    """Print a time (aware, UTC) for a person."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
