"""A grid to throw away: a CA in the layout of the IGTF, a host, users, and their proxies.

For the demonstration and for trying things out.  Keys are made on the spot, lie
unencrypted, and are good for a day.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from OpenSSL.crypto import X509

LIFETIME = datetime.timedelta(days=1)
"""How long everything made here is good for."""

ATTRIBUTES = {
    "C": NameOID.COUNTRY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
}
"""The parts of a DN that are understood here."""

PROXY_CERT_INFO = ObjectIdentifier("1.3.6.1.5.5.7.1.14")
"""RFC 3820, section 3.8."""

INHERIT_ALL = bytes.fromhex("300c300a06082b06010505071501")
"""A ProxyCertInfo that gives the proxy all of its issuer's rights, at any depth."""


@frozen
class Credential:
    """A certificate, its key, and the certificates up to the CA, which is left out."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    issuers: tuple[x509.Certificate, ...] = ()

    def write_proxy(self, path: Path) -> None:
        """Write what grid tools keep in one file: certificate, key, the rest of the chain."""
        _write_private(
            path,
            _pem(self.certificate) + self._key_pem() + b"".join(map(_pem, self.issuers)),
        )

    def write(self, certificate: Path, key: Path) -> None:
        """Write certificate and key to a file each."""
        certificate.write_bytes(_pem(self.certificate))
        _write_private(key, self._key_pem())

    def _key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_authority(dn: str) -> Credential:
    """Make a CA of its own root."""
    key = _new_key()
    name = _name(dn)
    builder = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    return Credential(builder.sign(key, SHA256()), key)


def make_host(authority: Credential, dn: str, names: Sequence[str]) -> Credential:
    """Make a host's credential.

    :param names: the host names and addresses that it answers to.
    """
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    key = _new_key()
    builder = _end_entity(authority, dn, key, ExtendedKeyUsageOID.SERVER_AUTH)
    certificate = builder.add_extension(alternatives, critical=False).sign(authority.key, SHA256())
    return Credential(certificate, key)


def make_user(authority: Credential, dn: str) -> Credential:
    """Make a user's own credential, from which proxies come."""
    key = _new_key()
    builder = _end_entity(authority, dn, key, ExtendedKeyUsageOID.CLIENT_AUTH)
    return Credential(builder.sign(authority.key, SHA256()), key)


def make_proxy(issuer: Credential) -> Credential:
    """Make an RFC 3820 proxy, as grid-proxy-init does, from a user or from a proxy."""
    key = _new_key()
    number = x509.random_serial_number()
    # Its name is its issuer's with one more CN, whose value only has to differ (section 3.4).
    more = x509.RelativeDistinguishedName(
        [x509.NameAttribute(NameOID.COMMON_NAME, str(number % 2**31))]
    )
    subject = x509.Name([*issuer.certificate.subject.rdns, more])
    builder = (
        _builder(subject, issuer.certificate.subject, key, number)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.UnrecognizedExtension(PROXY_CERT_INFO, INHERIT_ALL), critical=True)
    )
    return Credential(
        builder.sign(issuer.key, SHA256()), key, (issuer.certificate, *issuer.issuers)
    )


def write_ca_directory(authority: Credential, directory: Path) -> None:
    """Write the CA, its (empty) revocation list and its signing policy."""
    directory.mkdir(parents=True)
    certificate = authority.certificate
    stem = f"{X509.from_cryptography(certificate).subject_name_hash():08x}"
    (directory / f"{stem}.0").write_bytes(_pem(certificate))
    (directory / f"{stem}.r0").write_bytes(_revocation_list(authority))
    parts = [
        (next(short for short, oid in ATTRIBUTES.items() if oid == part.oid), str(part.value))
        for part in certificate.subject
    ]
    dn = "".join(f"/{short}={value}" for short, value in parts)
    (directory / f"{stem}.signing_policy").write_text(
        f"access_id_CA  X509    '{dn}'\n"
        "pos_rights    globus  CA:sign\n"
        f"cond_subjects globus  '\"{dn.rpartition('/')[0]}/*\"'\n"
    )


def _revocation_list(authority: Credential) -> bytes:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - datetime.timedelta(minutes=5))
        .next_update(now + LIFETIME)
        .sign(authority.key, SHA256())
        .public_bytes(Encoding.PEM)
    )


def _end_entity(
    authority: Credential, dn: str, key: rsa.RSAPrivateKey, purpose: ObjectIdentifier
) -> x509.CertificateBuilder:
    return (
        _builder(_name(dn), authority.certificate.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, number: int | None = None
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(number or x509.random_serial_number())
        # Clocks differ a little from machine to machine.
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _usage(**wanted: bool) -> x509.KeyUsage:
    unset = dict.fromkeys(
        (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
            "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    return x509.KeyUsage(**{**unset, **wanted})


def _name(dn: str) -> x509.Name:
    """Read ``/C=CA/O=Grid/CN=Somebody``."""
    parts = (part.split("=", 1) for part in dn.strip("/").split("/"))
    return x509.Name([x509.NameAttribute(ATTRIBUTES[short], value) for short, value in parts])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else could ever read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
