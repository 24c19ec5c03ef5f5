"""Certificates for the tests, good and hostile, down to the last bit.

A certificate is put together from DER here, not by a library, because half of
these are such as a library refuses to make.  The good ones are what a grid
really uses: ordinary v3 certificates with key identifiers.

The short way for a test that needs a grid and is not about certificates::

    grid = Grid(tmp_path)                 # a CA in its directory, with CRL and policy
    host = grid.host("localhost")         # writes hostcert.pem and hostkey.pem
    proxy = grid.user("Roger Impey").proxy().write(tmp_path / "x509up")
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from OpenSSL.crypto import X509

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def now() -> datetime:
    """The time (aware, UTC), to the second as certificates know it."""
    return datetime.now(timezone.utc).replace(microsecond=0)


# -- keys -----------------------------------------------------------------------------------


@functools.cache
def rsa_key(whose: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Somebody's RSA key: made once for all tests."""
    return rsa.generate_private_key(65537, bits)


@functools.cache
def p256_key(whose: str) -> ec.EllipticCurvePrivateKey:
    """Somebody's P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def ed25519_key(whose: str) -> ed25519.Ed25519PrivateKey:
    """Somebody's Ed25519 key."""
    return ed25519.Ed25519PrivateKey.generate()


# -- DER ------------------------------------------------------------------------------------


def der(tag: int, *parts: bytes) -> bytes:
    """A tag, a length, and what is in it."""
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def seq(*parts: bytes) -> bytes:
    """A SEQUENCE."""
    return der(0x30, *parts)


def integer(value: int) -> bytes:
    """An INTEGER, negative too."""
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *rest = map(int, dotted.split("."))
    out = b""
    for number in (first * 40 + second, *rest):
        septets = [number & 0x7F]
        while number := number >> 7:
            septets.append(0x80 | number & 0x7F)
        out += bytes(reversed(septets))
    return der(0x06, out)


def octets(content: bytes) -> bytes:
    """An OCTET STRING."""
    return der(0x04, content)


def bits(content: bytes, unused: int = 0) -> bytes:
    """A BIT STRING."""
    return der(0x03, bytes([unused]), content)


def utf8(text: str) -> bytes:
    """A UTF8String, whatever it holds."""
    return der(0x0C, text.encode())


def moment(time: datetime | bytes) -> bytes:
    """A UTCTime; or what the test made in its place."""
    if isinstance(time, bytes):
        return time
    return der(0x17, time.strftime("%y%m%d%H%M%SZ").encode())


TRUE = der(0x01, b"\xff")
NULL = der(0x05)

# -- names ----------------------------------------------------------------------------------

ATTRIBUTES = {
    "C": "2.5.4.6",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "CN": "2.5.4.3",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "SN": "2.5.4.4",
    "DC": "0.9.2342.19200300.100.1.25",
    "UID": "0.9.2342.19200300.100.1.1",
    "emailAddress": "1.2.840.113549.1.9.1",
}
"""The OIDs of attribute types."""

Pair = tuple[str, str | bytes]
"""An attribute: its type's name or OID, and its text or its DER."""


def rdn(*pairs: Pair) -> bytes:
    """An RDN; a SET is sorted by its encoding."""
    encoded = (
        seq(
            oid(ATTRIBUTES.get(kind, kind)),
            value if isinstance(value, bytes) else utf8(value),
        )
        for kind, value in pairs
    )
    return der(0x31, *sorted(encoded))


def rdns(text: str) -> bytes:
    """The RDNs of ``/C=CA/O=Grid/CN=Some Name``: no escapes, one attribute each."""
    parts = [part.partition("=") for part in text.strip("/").split("/")]
    return b"".join(rdn((kind, value)) for kind, _, value in parts)


# -- extensions -----------------------------------------------------------------------------


@frozen
class Extension:
    """An extension of a certificate: its OID and the DER of its value."""

    dotted: str
    value: bytes
    critical: bool = False

    def encoded(self) -> bytes:
        """Its DER."""
        return seq(oid(self.dotted), TRUE if self.critical else b"", octets(self.value))


DIGITAL_SIGNATURE, NON_REPUDIATION, KEY_ENCIPHERMENT = 0, 1, 2
KEY_AGREEMENT, CERT_SIGN, CRL_SIGN = 4, 5, 6
CLIENT_AUTH, SERVER_AUTH = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"


def key_usage(*usages: int) -> Extension:
    """KeyUsage with these bits."""
    value = sum(0x80 >> usage for usage in usages)
    unused = (value & -value).bit_length() - 1 if value else 0
    return Extension("2.5.29.15", bits(bytes([value]), unused), critical=True)


def basic_constraints(ca: bool, path_length: int | None = None) -> Extension:
    """BasicConstraints."""
    length = b"" if path_length is None else integer(path_length)
    return Extension("2.5.29.19", seq(TRUE if ca else b"", length), critical=True)


def extended_key_usage(*usages: str) -> Extension:
    """ExtendedKeyUsage."""
    return Extension("2.5.29.37", seq(*map(oid, usages)))


def alternative_names(*names: str, issuer: bool = False) -> Extension:
    """SubjectAltName, or IssuerAltName: addresses and host names."""
    encoded = b""
    for name in names:
        try:
            encoded += der(0x87, ipaddress.ip_address(name).packed)
        except ValueError:
            encoded += der(0x82, name.encode())
    return Extension("2.5.29.18" if issuer else "2.5.29.17", seq(encoded))


INHERIT_ALL = "1.3.6.1.5.5.7.21.1"
INDEPENDENT = "1.3.6.1.5.5.7.21.2"
LIMITED = "1.3.6.1.4.1.3536.1.1.1.9"


def proxy_cert_info(
    language: str = INHERIT_ALL,
    path_length: int | None = None,
    policy: bytes | None = None,
    critical: bool = True,
    trailing: bytes = b"",
) -> Extension:
    """RFC 3820's ProxyCertInfo, with whatever one likes in it."""
    length = b"" if path_length is None else integer(path_length)
    words = seq(oid(language), b"" if policy is None else octets(policy))
    return Extension("1.3.6.1.5.5.7.1.14", seq(length, words) + trailing, critical)


def draft_proxy_cert_info(
    language: str = INHERIT_ALL, path_length: int | None = None, critical: bool = True
) -> Extension:
    """The ProxyCertInfo of Globus Toolkit 3."""
    length = b"" if path_length is None else der(0xA1, integer(path_length))
    value = seq(seq(oid(language)), length)
    return Extension("1.3.6.1.4.1.3536.1.222", value, critical)


# -- certificates ---------------------------------------------------------------------------

_serials = itertools.count(1000)

_SIGNATURES = {
    "sha256": "1.2.840.113549.1.1.11",
    "sha1": "1.2.840.113549.1.1.5",
    "md5": "1.2.840.113549.1.1.4",
}
_DIGESTS = {"sha256": hashes.SHA256, "sha1": hashes.SHA1, "md5": hashes.MD5}


def _algorithm(key: Any, digest: str) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return seq(oid(_SIGNATURES[digest]), NULL)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return seq(oid("1.2.840.10045.4.3.2"))
    return seq(oid("1.3.101.112"))


def sign(key: Any, content: bytes, digest: str = "sha256") -> bytes:
    """A signature as certificates carry it."""
    algorithm = _DIGESTS[digest]()
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(content, padding.PKCS1v15(), algorithm)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(content, ec.ECDSA(algorithm))
    return bytes(key.sign(content))


def _public(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _key_identifier(key: Any) -> bytes:
    return hashlib.sha1(_public(key)).digest()


@frozen
class Credential:
    """A certificate with its key, and with those that issued it.

    :ivar subject: the RDNs, as DER.
    :ivar issuers: from the one that signed this to the root.
    """

    der: bytes
    key: Any
    subject: bytes
    serial: int
    issuers: tuple[Credential, ...] = ()

    @property
    def certificate(self) -> x509.Certificate:
        """As the library reads it, if it does."""
        return x509.load_der_x509_certificate(self.der)

    @property
    def sent(self) -> tuple[Credential, ...]:
        """What a client sends after its own certificate: all but the root."""
        return self.issuers[:-1]

    @property
    def path(self) -> list[x509.Certificate]:
        """The chain as OpenSSL would verify it, leaf first."""
        return [self.certificate, *(issuer.certificate for issuer in self.issuers)]

    def issue(
        self,
        subject: str | bytes,
        key: Any,
        extensions: Sequence[Extension] = (),
        **bent: Any,
    ) -> Credential:
        """Sign a certificate.

        :param bent: see :func:`certificate`.
        """
        bent = {"issuer_name": self.subject, "signer": self.key} | bent
        made = certificate(subject, key, extensions, **bent)
        return evolve(made, issuers=(self, *self.issuers))

    def proxy(
        self,
        *,
        limited: bool = False,
        path_length: int | None = None,
        whose: str = "proxy",
        **bent: Any,
    ) -> Credential:
        """Sign a proxy of RFC 3820.

        :param bent: ``name``, ``info``, ``usage``, ``more`` extensions, and
            what :func:`certificate` takes.
        """
        serial = bent.pop("serial", next(_serials))
        language = bent.pop("language", LIMITED if limited else INHERIT_ALL)
        info = bent.pop("info", proxy_cert_info(language, path_length))
        usage = bent.pop("usage", key_usage(DIGITAL_SIGNATURE, KEY_ENCIPHERMENT))
        extensions = [e for e in (info, usage, *bent.pop("more", ())) if e is not None]
        name = bent.pop("name", self.subject + rdn(("CN", str(serial))))
        key = bent.pop("key", None) or rsa_key(f"{whose} {len(self.issuers)}")
        bent = {"ends": now() + 12 * HOUR} | bent
        return self.issue(name, key, extensions, serial=serial, **bent)

    def legacy_proxy(self, *, limited: bool = False, **bent: Any) -> Credential:
        """Sign a proxy as Globus Toolkit 2 did."""
        last = rdn(("CN", "limited proxy" if limited else "proxy"))
        bent = {"name": self.subject + last, "info": None, "usage": None} | bent
        return self.proxy(**bent)

    def draft_proxy(
        self, *, limited: bool = False, path_length: int | None = None, **bent: Any
    ) -> Credential:
        """Sign a proxy as Globus Toolkit 3 did."""
        info = draft_proxy_cert_info(LIMITED if limited else INHERIT_ALL, path_length)
        return self.proxy(**({"info": info} | bent))

    def pem(self) -> bytes:
        """The certificate."""
        return pem("CERTIFICATE", self.der)

    def key_pem(self) -> bytes:
        """The key, unencrypted."""
        return bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
            if not isinstance(self.key, ed25519.Ed25519PrivateKey)
            else self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    def write(self, path: Path) -> Path:
        """Write a proxy file: certificate, key, the rest of the chain without the root."""
        content = [self.pem(), self.key_pem(), *(issuer.pem() for issuer in self.sent)]
        return write_private(path, b"".join(content))

    def write_pair(self, certificate: Path, key: Path) -> None:
        """Write certificate (and sub-CAs) and key to a file each."""
        certificate.write_bytes(b"".join([self.pem(), *(c.pem() for c in self.sent)]))
        write_private(key, self.key_pem())


def certificate(
    subject: str | bytes,
    key: Any,
    extensions: Sequence[Extension] = (),
    *,
    issuer_name: bytes | None = None,
    signer: Any = None,
    serial: int | None = None,
    encoded_serial: bytes | None = None,
    begins: datetime | bytes | None = None,
    ends: datetime | bytes | None = None,
    digest: str = "sha256",
    inner_algorithm: bytes | None = None,
    version: int = 3,
    bare: bool | None = None,
    identifiers: bool = True,
) -> Credential:
    """Put a certificate together; self-signed unless a signer is named.

    :param subject: ``/C=CA/CN=x``, or the DER of its RDNs.
    :param encoded_serial: the DER of the serial number, for one that is odd.
    :param inner_algorithm: the DER of an algorithm to claim inside.
    :param bare: without its extensions; by default if its version may have none.
    :param identifiers: with key identifiers, if it has extensions at all.
    """
    name = rdns(subject) if isinstance(subject, str) else subject
    signer = signer or key
    serial = next(_serials) if serial is None else serial
    algorithm = _algorithm(signer, digest)
    bare = version < 3 if bare is None else bare
    body = list(extensions)
    if identifiers:
        body += [
            Extension("2.5.29.14", octets(_key_identifier(key))),
            Extension("2.5.29.35", seq(der(0x80, _key_identifier(signer)))),
        ]
    tbs = seq(
        der(0xA0, integer(version - 1)) if version > 1 else b"",
        encoded_serial or integer(serial),
        inner_algorithm or algorithm,
        seq(name if issuer_name is None else issuer_name),
        seq(moment(begins or now() - HOUR), moment(ends or now() + 365 * DAY)),
        seq(name),
        _public(key),
        b"" if bare or not body else der(0xA3, seq(*(e.encoded() for e in body))),
    )
    signed = seq(tbs, algorithm, bits(sign(signer, tbs, digest)))
    return Credential(signed, key, name, serial)


CA_USAGE = key_usage(CERT_SIGN, CRL_SIGN)
USER_USAGE = key_usage(DIGITAL_SIGNATURE, KEY_ENCIPHERMENT)


def authority(
    subject: str | bytes,
    issuer: Credential | None = None,
    path_length: int | None = None,
    **bent: Any,
) -> Credential:
    """A CA's certificate: a root, or a sub-CA of ``issuer``."""
    key = bent.pop("key", None) or rsa_key(repr(subject))
    extensions = [basic_constraints(True, path_length), CA_USAGE, *bent.pop("more", ())]
    bent = {"ends": now() + 3650 * DAY} | bent
    if issuer is None:
        return certificate(subject, key, extensions, **bent)
    return issuer.issue(subject, key, extensions, **bent)


def end_entity(subject: str | bytes, issuer: Credential, **bent: Any) -> Credential:
    """A person's certificate.

    :param bent: ``usage`` and ``purpose`` (``None`` to leave out), ``more``, and what
        :func:`certificate` takes.
    """
    key = bent.pop("key", None) or rsa_key(repr(subject))
    usual = [
        basic_constraints(False),
        bent.pop("usage", USER_USAGE),
        bent.pop("purpose", extended_key_usage(CLIENT_AUTH)),
    ]
    extensions = [e for e in (*usual, *bent.pop("more", ())) if e is not None]
    return issuer.issue(subject, key, extensions, **bent)


def host(
    issuer: Credential, *names: str, subject: str | bytes | None = None, **bent: Any
) -> Credential:
    """A host's certificate, for server and client."""
    subject = subject or f"/C=CA/O=Grid/CN={names[0]}"
    more = [alternative_names(*names)] if names else []
    purpose = extended_key_usage(SERVER_AUTH, CLIENT_AUTH)
    return end_entity(subject, issuer, **({"purpose": purpose, "more": more} | bent))


# -- CRLs and directories -------------------------------------------------------------------


def crl(
    issuer: Credential,
    revoked: Iterable[Credential | int] = (),
    *,
    begins: datetime | None = None,
    ends: datetime | None = None,
    key: Any = None,
    more: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """A CRL, PEM.

    :param more: extensions, each with whether it is critical.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(begins or now() - HOUR)
        .next_update(ends or now() + 30 * DAY)
    )
    for one in revoked:
        serial = one if isinstance(one, int) else one.serial
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(now() - HOUR).build())
    identifier = x509.AuthorityKeyIdentifier(_key_identifier(issuer.key), None, None)
    builder = builder.add_extension(identifier, critical=False)
    builder = builder.add_extension(x509.CRLNumber(next(_serials)), critical=False)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical)
    signer = key or issuer.key
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, digest).public_bytes(Encoding.PEM)


def raw_crl(issuer: Credential, *serials: int) -> bytes:
    """A CRL of version 2 without extensions, PEM; of numbers that the library refuses, too."""
    algorithm = _algorithm(issuer.key, "sha256")
    entries = (seq(integer(serial), moment(now() - HOUR)) for serial in serials)
    times = moment(now() - HOUR), moment(now() + 30 * DAY)
    body = seq(integer(1), algorithm, seq(issuer.subject), *times, seq(*entries))
    return pem("X509 CRL", seq(body, algorithm, bits(sign(issuer.key, body))))


def signing_policy(ca: str, *globs: str) -> str:
    """A signing policy in Globus's format."""
    quoted = " ".join(f'"{glob}"' for glob in globs)
    return (
        f"# for the tests\naccess_id_CA  X509  '{ca}'\npos_rights  globus  CA:sign\n"
        f"cond_subjects  globus  '{quoted}'\n"
    )


def name_hash(credential: Credential) -> str:
    """The hash that OpenSSL files a CA under."""
    return f"{X509.from_cryptography(credential.certificate).subject_name_hash():08x}"


@frozen
class CADirectory:
    """A CA directory in the IGTF's layout."""

    path: Path

    def add(self, ca: Credential, *, revokes: bytes | None = b"", policy: str | None = None) -> str:
        """Put a CA in; answer its hash.

        :param revokes: the content of its CRL's file; empty for a good CRL that
            revokes nobody, ``None`` for no file.
        """
        self.path.mkdir(exist_ok=True)
        hashed = name_hash(ca)
        (self.path / f"{hashed}.0").write_bytes(ca.pem())
        if revokes is not None:
            (self.path / f"{hashed}.r0").write_bytes(revokes or crl(ca))
        if policy is not None:
            (self.path / f"{hashed}.signing_policy").write_text(policy)
        return hashed


@frozen
class Grid:
    """A CA in its directory, for tests that only need people with proxies.

    :ivar place: an empty directory of the test's.
    """

    place: Path
    ca: Credential = field(factory=lambda: authority("/C=CA/O=Grid/CN=Test CA"))
    directory: CADirectory = field(init=False)

    @directory.default
    def _fill(self) -> CADirectory:
        directory = CADirectory(self.place / "certificates")
        policy = signing_policy("/C=CA/O=Grid/CN=Test CA", "/C=CA/O=Grid/*")
        directory.add(self.ca, policy=policy)
        return directory

    def host(self, *names: str) -> tuple[Path, Path]:
        """Make a host certificate; answer where it and its key are."""
        paths = self.place / "hostcert.pem", self.place / "hostkey.pem"
        host(self.ca, *(names or ("localhost", "127.0.0.1"))).write_pair(*paths)
        return paths

    def user(self, common_name: str = "Roger Impey", **bent: Any) -> Credential:
        """Make a person's certificate: ``/C=CA/O=Grid/CN=...``."""
        return end_entity(f"/C=CA/O=Grid/CN={common_name}", self.ca, **bent)

    def revoke(self, *revoked: Credential) -> None:
        """Write a new CRL with these in it."""
        path = self.directory.path / f"{name_hash(self.ca)}.r0"
        path.write_bytes(crl(self.ca, revoked))


def pem(label: str, content: bytes) -> bytes:
    """DER in its PEM dress, for bytes that no library takes."""
    import base64

    lines = base64.encodebytes(content).replace(b"\n", b"")
    wrapped = b"\n".join(lines[i : i + 64] for i in range(0, len(lines), 64))
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (
        label.encode(),
        wrapped,
        label.encode(),
    )


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)
    return path
