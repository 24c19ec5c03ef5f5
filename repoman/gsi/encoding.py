"""What is wrong with an encoding, in words: never those of the library that stumbled.

The decoder of certificates and CRLs raises many things, with texts that are for
its developers: Rust's debugging form, Python's reprs, addresses on the web.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID

EXTENSIONS: Final = {
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: "subjectAltName",
    ExtensionOID.ISSUER_ALTERNATIVE_NAME: "issuerAltName",
    ExtensionOID.BASIC_CONSTRAINTS: "basicConstraints",
    ExtensionOID.KEY_USAGE: "keyUsage",
    ExtensionOID.EXTENDED_KEY_USAGE: "extKeyUsage",
    ExtensionOID.NAME_CONSTRAINTS: "nameConstraints",
    ExtensionOID.CERTIFICATE_POLICIES: "certificatePolicies",
    ExtensionOID.POLICY_CONSTRAINTS: "policyConstraints",
    ExtensionOID.POLICY_MAPPINGS: "policyMappings",
    ExtensionOID.INHIBIT_ANY_POLICY: "inhibitAnyPolicy",
    ExtensionOID.CRL_DISTRIBUTION_POINTS: "cRLDistributionPoints",
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS: "authorityInfoAccess",
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: "subjectKeyIdentifier",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: "authorityKeyIdentifier",
    ExtensionOID.ISSUING_DISTRIBUTION_POINT: "issuingDistributionPoint",
    x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"): "proxyCertInfo",
    x509.ObjectIdentifier("1.3.6.1.4.1.3536.1.222"): "proxyCertInfo of the draft",
    x509.ObjectIdentifier("2.16.840.1.113730.1.1"): "nsCertType",
}
"""What openssl and the RFCs call extensions, by OID."""

_PLACE: Final = re.compile(r'location: \["([A-Za-z_]+)')
"""Where the decoder stumbled, in its debugging form."""


def extension_name(oid: x509.ObjectIdentifier) -> str:
    """The name of an extension with its OID; the OID alone if few know it."""
    name = EXTENSIONS.get(oid, "")
    return f"{name} ({oid.dotted_string})" if name else oid.dotted_string


def encoding_fault(error: Exception) -> str:
    """What is wrong with a certificate or CRL that made the library raise.

    :returns: a predicate for a person, such as "is not validly encoded".
    """
    if isinstance(error, x509.DuplicateExtension):
        return f"has the extension {extension_name(error.oid)} twice"
    if isinstance(error, x509.UnsupportedGeneralNameType):
        return "has a name of a kind that is not known here"
    if isinstance(error, x509.InvalidVersion):
        return "is of a version that nobody uses (only 1 and 3 are)"
    if isinstance(error, UnsupportedAlgorithm):
        return "has a key or a signature of a kind that is not known here"
    place = _PLACE.search(str(error))
    return "is not validly encoded" + (f" (in its {_field(place[1])})" if place else "")


def _field(place: str) -> str:
    """The decoder's name of a field, as openssl and the RFCs have it."""
    words = place.replace("_", "").lower()
    names = {name.lower(): name for name in EXTENSIONS.values()} | {
        "subjectalternativename": "subjectAltName",
        "issueralternativename": "issuerAltName",
        "extendedkeyusage": "extKeyUsage",
    }
    return names.get(words, place.replace("_", " "))
