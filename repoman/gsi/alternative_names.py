"""The names of a host in a certificate's subjectAltName, each read by itself.

The library reads an extension as a whole or not at all, and so one entry of a
kind that it does not know, or one letter that is not ASCII, would void the
good names beside it.  Here an entry that is no usable name is skipped: it can
match no host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final

from attrs import frozen
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtensionOID
from service_identity import CertificateError
from service_identity.hazmat import DNSPattern, IPAddressPattern

_DNS_NAME: Final = b"\x82"
_IP_ADDRESS: Final = b"\x87"
"""The tags of the two kinds of names that a host is asked for by (RFC 5280, 4.2.1.6)."""

_HOST_NAME: Final = re.compile(
    rb"(?:\*\.)?(?:[A-Za-z0-9_-]+\.)*[0-9]*[A-Za-z_-][A-Za-z0-9_-]*", re.ASCII
)
"""A host name, or a wildcard for one whole label (RFC 9525, 6.3).

What ends in a number is an address (RFC 1123, 2.1).
"""

_PACKED: Final = (4, 16)
"""The lengths of an address, in bytes."""


@asn1.sequence
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class _Body:
    """A TBSCertificate (RFC 5280, 4.1), of which only the extensions are looked into."""

    version: Annotated[int, asn1.Explicit(0), asn1.Default(0)]
    serial: asn1.TLV
    algorithm: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    key: asn1.TLV
    issuer_id: Annotated[asn1.BitString | None, asn1.Implicit(1)]
    subject_id: Annotated[asn1.BitString | None, asn1.Implicit(2)]
    extensions: Annotated[list[_Extension] | None, asn1.Explicit(3)]


@asn1.sequence
class _Many:
    names: list[asn1.TLV]


@frozen
class HostNames:
    """What a certificate's subjectAltName says about hosts, without what can match none.

    :ivar names: as they are written; wildcards too.
    :ivar addresses: IPv4 and IPv6, packed.
    """

    names: tuple[bytes, ...] = ()
    addresses: tuple[bytes, ...] = ()

    def patterns(self, host: bytes) -> Iterator[DNSPattern | IPAddressPattern]:
        """What is to be compared with a host's name or address.

        :param host: in ASCII; other hosts' names, of which there may be thousands, are left out.
        """
        for name in self.names:
            if name.lower() == host.lower() or name.startswith(b"*."):
                try:
                    yield DNSPattern.from_bytes(name)
                except CertificateError:
                    continue  # a wildcard for a whole top-level domain
        yield from map(IPAddressPattern.from_bytes, self.addresses)


def read_host_names(certificate: x509.Certificate) -> HostNames:
    """The host names and addresses of a certificate.

    The subject's CN is no name of a host (RFC 9525, 1.2).

    :raises ValueError: the certificate, or the frame of its names, is not DER, or it
        has the extension twice (RFC 5280, 4.2).
    """
    body = asn1.decode_der(_Body, certificate.tbs_certificate_bytes)
    found = [
        extension.value
        for extension in body.extensions or ()
        if extension.oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME
    ]
    if len(found) > 1:
        raise ValueError("two subjectAltName extensions")
    entries = [(one.tag_bytes, bytes(one.data)) for value in found for one in _entries(value)]
    return HostNames(
        tuple(data for tag, data in entries if tag == _DNS_NAME and _HOST_NAME.fullmatch(data)),
        tuple(data for tag, data in entries if tag == _IP_ADDRESS and len(data) in _PACKED),
    )


def _entries(value: bytes) -> list[asn1.TLV]:
    # The library decodes a list as a field only, hence the frame; some versions encode none.
    return asn1.decode_der(_Many, b"\x30" + _length(len(value)) + value).names


def _length(size: int) -> bytes:
    """A length in DER (X.690, 8.1.3 and 10.1)."""
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets
