"""What a certificate says of itself as a proxy: RFC 3820, the GT3 draft, or GT2.

The RFC's ProxyCertInfo is decoded strictly, because OpenSSL's reading is lax:
it takes a negative or a huge path length for "unlimited" and ignores what
follows the structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat import asn1

from repoman.errors import CredentialRefused
from repoman.gsi.dn import Rdn, likeness

PROXY_CERT_INFO: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14")
"""The extension of RFC 3820, section 3.8."""

DRAFT_PROXY_CERT_INFO: Final = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222")
"""The extension of the draft before it (Globus Toolkit 3)."""

CLAIMS: Final = frozenset({PROXY_CERT_INFO, DRAFT_PROXY_CERT_INFO})
"""Who has one of these, well formed or not, claims to be a proxy."""

INHERIT_ALL: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.21.1")
"""The proxy may do all that its issuer may."""

LIMITED: Final = x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.1.1.9")
"""Globus: the proxy may move data, but not start jobs."""

INDEPENDENT: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.21.2")
"""The proxy has no rights of its issuer's, so it proves nobody's identity here."""

LONGEST_PATH: Final = 1000
"""A greater path length is refused as a trick, not taken for "many"."""

OLD_NAMES: Final = ("proxy", "limited proxy")
"""The CN that a proxy of Globus Toolkit 2 adds, full or limited."""


class Flavour(Enum):
    """The three kinds of proxies that the grid has seen."""

    RFC = "RFC 3820"
    DRAFT = "draft (GT3)"
    LEGACY = "legacy (GT2)"


@frozen
class ProxyInfo:
    """What a proxy says of itself.

    :ivar path_length: how many proxies may follow it; ``None`` for any number.
    """

    flavour: Flavour
    limited: bool
    path_length: int | None = None


@asn1.sequence
class _Policy:
    language: x509.ObjectIdentifier
    octets: bytes | None


@asn1.sequence
class _ProxyCertInfo:
    path_length: int | None
    policy: _Policy


@asn1.sequence
class _DraftProxyCertInfo:
    policy: _Policy
    path_length: Annotated[int | None, asn1.Explicit(1)]


def read_proxy_info(
    name: tuple[Rdn, ...], extensions: Mapping[x509.ObjectIdentifier, x509.Extension[Any]]
) -> ProxyInfo:
    """What a proxy says of itself.

    A certificate without the extension is taken for a legacy proxy: whether
    it stands where a proxy may stand is for the caller to say.

    :param name: the certificate's own.
    :raises CredentialRefused: it says what nobody should believe.
    """
    found = [extensions[oid] for oid in CLAIMS if oid in extensions]
    if not found:
        return _legacy(name)
    if {value for _, value in likeness(name[-1:])} & set(OLD_NAMES):
        # Globus judges by the name, before the extension: so "limited proxy" would be limited
        # there and full here.  No tool makes such names, however they are written.
        raise CredentialRefused(
            "A proxy certificate has a ProxyCertInfo and is named like an old proxy;"
            " make a new one with grid-proxy-init -rfc."
        )
    if len(found) > 1:
        raise CredentialRefused("A proxy certificate has two ProxyCertInfo extensions.")
    if not found[0].critical:
        raise CredentialRefused("A proxy certificate's ProxyCertInfo is not critical.")
    rfc = found[0].oid == PROXY_CERT_INFO
    info = _decoded(found[0].value.public_bytes(), _ProxyCertInfo if rfc else _DraftProxyCertInfo)
    if info.path_length is not None and not 0 <= info.path_length <= LONGEST_PATH:
        raise CredentialRefused("A proxy certificate has an impossible path length.")
    flavour = Flavour.RFC if rfc else Flavour.DRAFT
    return ProxyInfo(flavour, _is_limited(info.policy), info.path_length)


def _decoded(
    der: bytes, kind: type[_ProxyCertInfo] | type[_DraftProxyCertInfo]
) -> _ProxyCertInfo | _DraftProxyCertInfo:
    try:
        return asn1.decode_der(kind, der)
    except ValueError:
        raise CredentialRefused("A proxy certificate's ProxyCertInfo is malformed.") from None


def _is_limited(policy: _Policy) -> bool:
    if policy.language == INDEPENDENT:
        raise CredentialRefused(
            "This is an independent proxy, which speaks for nobody; make one without -independent."
        )
    if policy.language not in (INHERIT_ALL, LIMITED):
        raise CredentialRefused(
            "This proxy is restricted by a policy that Repoman does not know"
            f" ({policy.language.dotted_string}); make a plain one with grid-proxy-init."
        )
    if policy.octets is not None:
        raise CredentialRefused("A proxy certificate's policy has octets that it may not have.")
    return policy.language == LIMITED


def _legacy(name: tuple[Rdn, ...]) -> ProxyInfo:
    last = [value for _, value in name[-1]]
    if len(last) != 1 or last[0] not in OLD_NAMES:
        raise CredentialRefused(
            "A certificate was signed by one that is no certificate authority,"
            " and it is no proxy certificate either."
        )
    return ProxyInfo(Flavour.LEGACY, last == ["limited proxy"])
