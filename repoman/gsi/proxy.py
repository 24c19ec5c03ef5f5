"""Who is behind a verified chain of certificates: RFC 3820 and what OpenSSL leaves out.

OpenSSL has verified the path already: signatures, times, CRLs, key sizes.  But
it takes any proxy policy for "may do all", compares names loosely, and knows
nothing of limited or older proxies.  So each proxy is judged again here, by
its place in the verified chain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final, TypeVar

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from repoman.errors import CredentialRefused
from repoman.gsi.chain import CertificatePath, Link, check_validity, divide, read
from repoman.gsi.dn import COMMON_NAME, dn_text, shown_name
from repoman.gsi.encoding import encoding_fault, extension_name
from repoman.gsi.proxycertinfo import CLAIMS, Flavour, ProxyInfo, read_proxy_info
from repoman.gsi.waivers import check_authority_path_lengths, check_waivers
from repoman.model import Identity

T = TypeVar("T")

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
    return or_refuse(chain, lambda: identity_of(divide(chain), now, rules, waived))


def or_refuse(chain: Sequence[x509.Certificate], judge: Callable[[], T]) -> T:
    """What ``judge`` finds out about a chain; whatever it raises becomes a refusal.

    :raises CredentialRefused: with the name of what the peer showed.
    """
    try:
        return judge()
    except CredentialRefused as refusal:
        shown = shown_name(lambda: chain[0])
        raise CredentialRefused(f"{refusal.message} (Certificate: {shown})") from None
    except Exception:
        # Odd encodings raise anything, at any access to a certificate.
        where = _where_odd(chain)
        raise CredentialRefused(f"Your certificate chain is not validly encoded{where}.") from None


def _where_odd(chain: Sequence[x509.Certificate]) -> str:
    """Which certificate it is, and what in it; empty if each can be read by itself."""
    for certificate in chain:
        try:
            read(certificate)
        except CredentialRefused:
            continue
        except Exception as error:
            return f": {shown_name(lambda: certificate)} {encoding_fault(error)}"  # noqa: B023 -- called at once
    return ""


def identity_of(
    path: CertificatePath, now: datetime, rules: ProxyRules, waived: Collection[tuple[int, int]]
) -> Identity:
    """Apply the rules of proxies; for the parameters see :func:`identify`.

    :raises CredentialRefused: one is broken.
    """
    if len(path.proxies) > DEEPEST:
        raise CredentialRefused(f"More than {DEEPEST} proxies lie between you and this one.")
    infos = [read_proxy_info(proxy.name, proxy.extensions) for proxy in path.proxies]
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
        subject=path.end_entity.dn,
        issuer=dn_text(path.end_entity.certificate.issuer),
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


def _check_proxy(proxy: Link, issuer: Link) -> None:
    if proxy.certificate.version is not x509.Version.v3:
        raise CredentialRefused("A proxy certificate is not of version 3 (RFC 3820, section 3).")
    if proxy.is_authority:
        raise CredentialRefused("A proxy certificate says that it is a certificate authority's.")
    if proxy.extensions.keys() & _ALTERNATIVE_NAMES:
        raise CredentialRefused(f"The proxy certificate {proxy.dn} has an alternative name.")
    unknown = [o for o, e in proxy.extensions.items() if e.critical and o not in _KNOWN_CRITICAL]
    if unknown:
        raise CredentialRefused(
            f"The proxy certificate {proxy.dn} has a critical extension not known here:"
            f" {extension_name(unknown[0])}."
        )
    _check_key_usages(proxy, issuer)
    last = [oid for oid, _ in proxy.name[-1]]
    if proxy.name[:-1] != issuer.name or last != [COMMON_NAME]:
        raise CredentialRefused("A proxy certificate's name is not its issuer's plus one CN.")
    _check_purpose(proxy)
    try:
        proxy.certificate.verify_directly_issued_by(issuer.certificate)
    except (InvalidSignature, TypeError, ValueError):
        raise CredentialRefused("A proxy certificate was not signed by the one above.") from None


# OpenSSL knows more, name and policy constraints among them, and keeps none of these in a proxy.
_KNOWN_CRITICAL = CLAIMS | {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
}

_ALTERNATIVE_NAMES = frozenset(
    {ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.ISSUER_ALTERNATIVE_NAME}
)


def _check_key_usages(proxy: Link, issuer: Link) -> None:
    usage = proxy.extension(ExtensionOID.KEY_USAGE)
    if usage is not None and (usage.key_cert_sign or usage.crl_sign):
        raise CredentialRefused("A proxy certificate claims to sign certificates or CRLs.")
    usage = issuer.extension(ExtensionOID.KEY_USAGE)
    if usage is not None and not usage.digital_signature:
        raise CredentialRefused("A proxy was signed with a key that is not for signatures.")


def _check_purpose(link: Link) -> None:
    # OpenSSL checks this too, but its complaint may have been put off.
    usage = link.extension(ExtensionOID.EXTENDED_KEY_USAGE)
    netscape = link.extension(NETSCAPE_TYPE)
    if (usage is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in usage) or (
        netscape is not None and not _names_clients(netscape.value)
    ):
        raise CredentialRefused(
            f"Your certificate {link.dn} is not meant for clients: its extKeyUsage or nsCertType"
            " names other purposes."
        )


def _names_clients(netscape_type: bytes) -> bool:
    return bool(asn1.decode_der(asn1.BitString, netscape_type).as_bytes()[0] & 0x80)
