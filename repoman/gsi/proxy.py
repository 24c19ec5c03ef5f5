"""Who is behind a verified chain of certificates: RFC 3820 and what OpenSSL leaves out.

OpenSSL has verified the path already: signatures, times, CRLs, key sizes.  But
it takes any proxy policy for "may do all", compares names loosely, and knows
nothing of limited or older proxies.  So each proxy is judged again here, by
its place in the verified chain.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtendedKeyUsageOID

from repoman.errors import CredentialRefused
from repoman.gsi.chain import check_validity, divide, is_authority
from repoman.gsi.dn import COMMON_NAME, dn_text, rdns
from repoman.gsi.proxycertinfo import Flavour, ProxyInfo, read_proxy_info
from repoman.gsi.waivers import check_authority_path_lengths, check_waivers
from repoman.model import Identity

DEEPEST: Final = 8
"""The most proxies in one chain: each costs a signature to check, and nobody needs so many."""

NETSCAPE_TYPE: Final = x509.ObjectIdentifier("2.16.840.1.113730.1.1")
"""What said "for clients" before ExtendedKeyUsage did; CAs of the grid still use it."""


@frozen
class ProxyRules:
    """What the operator allows.

    :ivar legacy: accept legacy (GT2) and draft (GT3) proxies too.
    """

    legacy: bool = False


def identify(
    chain: Sequence[x509.Certificate],
    now: datetime,
    rules: ProxyRules,
    waived: Collection[tuple[int, int]] = (),
) -> Identity:
    """Find out whom a chain proves.

    :param chain: as OpenSSL verified it, leaf first; not as the peer sent it.
    :param now: aware, UTC.
    :param waived: OpenSSL's (error, depth) pairs that the handshake put off.
    :raises CredentialRefused: nobody, with the reason for a person.
    """
    try:
        return _identify(chain, now, rules, waived)
    except CredentialRefused as refusal:
        raise CredentialRefused(f"{refusal.message}{_shown(chain)}") from None
    except Exception:
        # Odd encodings raise anything, at any access to a certificate.
        raise CredentialRefused("Your certificate chain is not validly encoded.") from None


def _identify(
    chain: Sequence[x509.Certificate],
    now: datetime,
    rules: ProxyRules,
    waived: Collection[tuple[int, int]],
) -> Identity:
    path = divide(chain)
    if len(path.proxies) > DEEPEST:
        raise CredentialRefused(f"More than {DEEPEST} proxies lie between you and this one.")
    infos = [read_proxy_info(proxy) for proxy in path.proxies]
    flavours = {info.flavour for info in infos}
    _check_flavours(flavours, rules)
    check_waivers(path, flavours, waived)
    not_after = check_validity(path, now)
    check_authority_path_lengths(path)
    _check_purpose(path.end_entity)
    for index, (proxy, issuer) in enumerate(path.delegated):
        _check_proxy(proxy, issuer)
        _check_delegation(infos[: index + 1], len(infos) - index - 1)
    return Identity(
        subject=dn_text(path.end_entity.subject),
        issuer=dn_text(path.end_entity.issuer),
        limited=any(info.limited for info in infos),
        proxies=len(infos),
        not_after=not_after,
    )


def _check_flavours(flavours: set[Flavour], rules: ProxyRules) -> None:
    for flavour in flavours - {Flavour.RFC}:
        if not rules.legacy:
            raise CredentialRefused(
                f"This is a {flavour.value} proxy, which is not accepted here;"
                " make a new one with grid-proxy-init -rfc."
            )
    if len(flavours) > 1:
        raise CredentialRefused("Your chain mixes proxies of different kinds.")


def _check_delegation(infos: Sequence[ProxyInfo], below: int) -> None:
    """Check the last one against those above it, and how many are below it."""
    *above, info = infos
    if info.path_length is not None and below > info.path_length:
        raise CredentialRefused(
            f"A proxy allows {info.path_length} more below it, and {below} are there."
        )
    if above and above[-1].limited and not info.limited:
        raise CredentialRefused("A limited proxy was used to make one that is not limited.")


def _check_proxy(proxy: x509.Certificate, issuer: x509.Certificate) -> None:
    if is_authority(proxy):
        raise CredentialRefused("A proxy certificate says that it is a certificate authority's.")
    for extension in proxy.extensions:
        if isinstance(extension.value, _ALTERNATIVE_NAMES):
            raise CredentialRefused("A proxy certificate has an alternative name.")
    _check_key_usages(_key_usage(proxy), _key_usage(issuer))
    *parent, last = rdns(proxy.subject)
    if tuple(parent) != rdns(issuer.subject) or [oid for oid, _ in last] != [COMMON_NAME]:
        raise CredentialRefused("A proxy certificate's name is not its issuer's plus one CN.")
    _check_purpose(proxy)
    try:
        proxy.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        raise CredentialRefused("A proxy certificate was not signed by the one above.") from None


_ALTERNATIVE_NAMES = (x509.SubjectAlternativeName, x509.IssuerAlternativeName)


def _check_key_usages(proxy: x509.KeyUsage | None, issuer: x509.KeyUsage | None) -> None:
    if proxy is not None and (proxy.key_cert_sign or proxy.crl_sign):
        raise CredentialRefused("A proxy certificate claims to sign certificates or CRLs.")
    if issuer is not None and not issuer.digital_signature:
        raise CredentialRefused("A proxy was signed with a key that is not for signatures.")


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _check_purpose(certificate: x509.Certificate) -> None:
    # OpenSSL checks this too, but its complaint may have been put off.
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.ExtendedKeyUsage):
            meant = ExtendedKeyUsageOID.CLIENT_AUTH in value
        elif isinstance(value, x509.UnrecognizedExtension) and value.oid == NETSCAPE_TYPE:
            meant = bool(asn1.decode_der(asn1.BitString, value.value).as_bytes()[0] & 0x80)
        else:
            continue
        if not meant:
            raise CredentialRefused("A certificate of yours is not meant for clients.")


def _shown(chain: Sequence[x509.Certificate]) -> str:
    try:
        return f" (Certificate: {dn_text(chain[0].subject)})"
    except Exception:
        return ""
