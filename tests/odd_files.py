"""What may lie in a CA directory and is odd: each costs no more than itself."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from cryptography import x509

from tests.credentials import (
    CA_USAGE,
    DAY,
    NULL,
    Credential,
    Extension,
    Grid,
    authority,
    basic_constraints,
    bits,
    certificate,
    crl,
    der,
    integer,
    name_hash,
    now,
    octets,
    oid,
    p256_key,
    pem,
    raw_crl,
    rdn,
    rsa_key,
    seq,
)

IGTF = Path("/etc/grid-security/certificates")
"""Where Debian's ``igtf-policy-*`` put the real authorities."""

LIMIT = 100_000_000
"""The size of a file that is far too large, in bytes."""


@frozen
class _Shown:
    """A public key of any kind, whose private half nobody has."""

    encoded: bytes

    def public_key(self) -> _Shown:
        return self

    def public_bytes(self, *how: object) -> bytes:
        return self.encoded


def _ca(subject: str | bytes = "/C=XX/CN=Odd", **bent: Any) -> Credential:
    key = bent.pop("key", None) or p256_key("odd")
    extensions = bent.pop("extensions", [basic_constraints(True), CA_USAGE])
    return certificate(subject, key, extensions, **{"signer": p256_key("odd"), **bent})


def _with_key(algorithm: bytes, key: bytes) -> Callable[[Grid], bytes]:
    shown = seq(algorithm, bits(key))
    return lambda grid: _ca(key=_Shown(shown)).pem()


def _on_curve(parameters: bytes, size: int = 32) -> Callable[[Grid], bytes]:
    point = b"\x04" + bytes(range(1, size + 1)) * 2
    return _with_key(seq(oid("1.2.840.10045.2.1"), parameters), point)


def _rsa(modulus: int, exponent: int = 65537) -> Callable[[Grid], bytes]:
    numbers = seq(integer(modulus), integer(exponent))
    return _with_key(seq(oid("1.2.840.113549.1.1.1"), NULL), numbers)


_PRIME_FIELD = seq(oid("1.2.840.10045.1.1"), integer(2**255 - 19))
_EXPLICIT = seq(
    integer(1), _PRIME_FIELD, seq(octets(b"\x01"), octets(b"\x02")), octets(b"\x04\x01\x02"),
    integer(97),
)  # fmt: skip


def _brainpool(grid: Grid) -> bytes:
    """As an administrator would meet it."""
    words = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:brainpoolP256t1 -nodes"
        " -keyout /dev/null -subj /C=XX/CN=Brainpool -days 9"
    )
    return subprocess.run(words.split(), capture_output=True, check=True).stdout


def _named(*parts: bytes) -> Callable[[Grid], bytes]:
    return lambda grid: _ca(b"".join(parts)).pem()


def _of(**bent: Any) -> Callable[[Grid], bytes]:
    return lambda grid: _ca(**bent).pem()


def _twice(grid: Grid) -> bytes:
    extensions = [basic_constraints(True), CA_USAGE, Extension("2.5.29.14", octets(b"x"))]
    return _ca(extensions=extensions).pem()


def _after_garbage(grid: Grid) -> bytes:
    return pem("CERTIFICATE", b"garbage") + authority("/C=XX/CN=Behind").pem()


def _twin(grid: Grid) -> bytes:
    return authority("/C=CA/O=Grid/CN=Test CA", key=rsa_key("twin")).pem()  # told: no CRL is its


@frozen
class Odd:
    """An odd entry of the directory.

    :ivar name: of the entry.
    :ivar put: makes its content, or the entry itself (and returns ``None``).
    :ivar told: an operator is told of it, by its name.
    :ivar printed: its name as a line shows it.
    """

    name: str
    put: Callable[[Grid], bytes | None]
    told: bool = True
    printed: str = ""

    def into(self, grid: Grid) -> str:
        """Put it into the directory; return its name in messages."""
        name = self.name.replace("HASH", name_hash(grid.ca))
        path = grid.directory.path / name
        content = self.put(grid)
        if content is not None:
            with open(os.fsencode(path), "wb") as file:
                file.write(content)
        return self.printed or name


def _entry(make: Callable[[Path], object], name: str = "0dd00000.0") -> Callable[[Grid], None]:
    return lambda grid: make(grid.directory.path / name) and None


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, LIMIT)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def _kubernetes(path: Path) -> None:
    (path.parent / "..2026_11_27_10_00.123").mkdir()
    (path.parent / "..data").symlink_to("..2026_11_27_10_00.123")


def _stuff(content: bytes) -> Callable[[Grid], bytes]:
    return lambda grid: content


CAS = {
    "a brainpool key": Odd("0dd00000.0", _brainpool),
    "a key on an unknown curve": Odd("0dd00000.0", _on_curve(oid("1.3.36.3.3.2.8.1.1.8"))),
    "on sect283k1": Odd("0dd00000.0", _on_curve(oid("1.3.132.0.16"), 36)),
    "on secp224k1": Odd("0dd00000.0", _on_curve(oid("1.3.132.0.32"), 28)),
    "SM2": Odd("0dd00000.0", _on_curve(oid("1.2.156.10197.1.301"))),
    "explicit parameters": Odd("0dd00000.0", _on_curve(_EXPLICIT)),
    "a point off its curve": Odd("0dd00000.0", _on_curve(oid("1.2.840.10045.3.1.7"))),
    "an unknown kind of key": Odd("0dd00000.0", _with_key(seq(oid("1.2.3.4.5")), b"key")),
    "Ed448": Odd("0dd00000.0", _with_key(seq(oid("1.3.101.113")), bytes(57)), told=False),
    "X25519": Odd("0dd00000.0", _with_key(seq(oid("1.3.101.110")), bytes(range(32))), told=False),
    "DSA": Odd(
        "0dd00000.0",
        _with_key(
            seq(oid("1.2.840.10040.4.1"), seq(integer(2**1023 + 1), integer(97), integer(5))),
            integer(7),
        ),
        told=False,
    ),
    "RSA of 512 bits": Odd("0dd00000.0", _rsa(2**511 + 111), told=False),
    "RSA of 16384 bits": Odd("0dd00000.0", _rsa(2**16383 + 111), told=False),
    "RSA with exponent 1": Odd("0dd00000.0", _rsa(2**2047 + 111, 1)),
    "RSA with an even exponent": Odd("0dd00000.0", _rsa(2**2047 + 111, 4)),
    "a negative modulus": Odd("0dd00000.0", _rsa(-(2**2047))),
    "serial number 0": Odd("0dd00000.0", _of(serial=0), told=False),
    "a negative serial number": Odd("0dd00000.0", _of(encoded_serial=integer(-7)), told=False),
    "version 1": Odd("0dd00000.0", _of(version=1, identifiers=False), told=False),
    "no authority's": Odd("0dd00000.0", _of(extensions=[basic_constraints(False)])),
    "no longer valid": Odd("0dd00000.0", _of(begins=now() - 9 * DAY, ends=now() - DAY)),
    "not yet valid": Odd("0dd00000.0", _of(begins=now() + DAY)),
    "a time that is none": Odd("0dd00000.0", _of(ends=der(0x17, b"991399999999Z"))),
    "BMPString": Odd("0dd00000.0", _named(rdn(("CN", der(0x1E, b"\0O\0d\0d")))), told=False),
    "T61String": Odd("0dd00000.0", _named(rdn(("CN", der(0x14, b"Od\xe4"))))),
    "no UTF-8": Odd("0dd00000.0", _named(rdn(("CN", der(0x0C, b"Od\xff"))))),
    "an empty name": Odd("0dd00000.0", _named(b"")),
    "an empty value": Odd("0dd00000.0", _named(rdn(("CN", "")))),
    "a name of two lines": Odd("0dd00000.0", _named(rdn(("CN", "Odd\n[OK] all is well")))),
    "a name that is too long": Odd("0dd00000.0", _named(rdn(("CN", "x" * 3000)))),
    "a country of three letters": Odd("0dd00000.0", _named(rdn(("C", "XXX"))), told=False),
    "an extension twice": Odd("0dd00000.0", _twice),
    "a garbled extension": Odd(
        "0dd00000.0", _of(extensions=[basic_constraints(True), Extension("2.5.29.15", b"\xff")])
    ),
    "a garbled block": Odd("0dd00000.0", _stuff(pem("CERTIFICATE", b"garbage"))),
    "no base64": Odd("0dd00000.0", _stuff(b"-----BEGIN CERTIFICATE-----\n%%%\n")),
    "half a file": Odd("0dd00000.0", lambda grid: _ca().pem()[:300]),
    "DER": Odd("0dd00000.0", lambda grid: _ca().der),
    "a key": Odd("0dd00000.0", lambda grid: _ca().key_pem()),
    "two in one file": Odd(
        "0dd00000.0", lambda grid: _ca().pem() + authority("/C=XX/CN=Two").pem(), told=False
    ),
    "a good one after garbage": Odd("0dd00000.0", _after_garbage),
    "the same once more": Odd("0dd00000.0", lambda grid: grid.ca.pem(), told=False),
    "another of the same name": Odd("0dd00000.0", _twin),
    "nothing": Odd("0dd00000.0", _stuff(b"")),
    "zeros": Odd("0dd00000.0", _stuff(bytes(1000))),
}
"""Certificates."""

ENTRIES = {
    "a huge file": Odd("0dd00000.0", _entry(_huge)),
    "a FIFO": Odd("0dd00000.0", _entry(os.mkfifo)),
    "a socket": Odd("0dd00000.0", _entry(_socket)),
    "a device": Odd("0dd00000.0", _entry(lambda path: path.symlink_to("/dev/zero"))),
    "a link to nothing": Odd("0dd00000.0", _entry(lambda path: path.symlink_to("nowhere"))),
    "a link to itself": Odd("0dd00000.0", _entry(lambda path: path.symlink_to(path.name))),
    "a directory": Odd("0dd00000.0", _entry(Path.mkdir), told=False),
    "what Kubernetes keeps": Odd("..data", _entry(_kubernetes), told=False),
    "a name that is no text": Odd(os.fsdecode(b"\xff.0"), _stuff(b"x"), printed="\\udcff.0"),
    "a name of two lines": Odd("a\nb.0", _stuff(b"x"), printed="a\\nb.0"),
    "a FIFO for a CRL": Odd("HASH.r1", lambda grid: os.mkfifo(_beside(grid, "r1"))),
    "a FIFO for others' policy": Odd("x.info", lambda grid: os.mkfifo(_beside(grid, "x")), False),
}
"""What is no ordinary file."""


def _beside(grid: Grid, kind: str) -> Path:
    return grid.directory.path / f"{name_hash(grid.ca)}.{kind}"


def _crl_with(critical: bool) -> Callable[[Grid], bytes]:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")
    return lambda grid: crl(grid.ca, more=[(odd, critical)])


def _unknown_signature(grid: Grid) -> bytes:
    algorithm = seq(oid("1.2.3.4.5"))
    times = (der(0x17, f"{day:%y%m%d%H%M%SZ}".encode()) for day in (now() - DAY, now() + DAY))
    body = seq(integer(1), algorithm, seq(grid.ca.subject), *times)
    return pem("X509 CRL", seq(body, algorithm, bits(b"signature")))


def _crl_of(*name: bytes) -> Callable[[Grid], bytes]:
    return lambda grid: raw_crl(evolve(grid.ca, subject=b"".join(name)))


def _forged_crl(grid: Grid) -> bytes:
    """Newer than the right one, and with its name: OpenSSL would take the newest."""
    return crl(grid.ca, [1], begins=now(), ends=now() + 90 * DAY, key=rsa_key("mallory"))


CRLS = {
    "an unknown critical extension": Odd("0dd00000.r0", _crl_with(critical=True)),
    "an unknown extension": Odd("0dd00000.r0", _crl_with(critical=False), told=False),
    "a garbled CRL": Odd("0dd00000.r0", _stuff(pem("X509 CRL", b"garbage"))),
    "no CRL": Odd("0dd00000.r0", _stuff(b"broken")),
    "an empty CRL": Odd("0dd00000.r0", _stuff(b"")),
    "an unknown signature": Odd("0dd00000.r0", _unknown_signature),
    "another's signature": Odd("0dd00000.r0", _forged_crl),
    "another's signature, beside the right one": Odd("HASH.r1", _forged_crl),
    "an issuer that is no UTF-8": Odd("0dd00000.r0", _crl_of(rdn(("CN", der(0x0C, b"\xff"))))),
    "an issuer of bits": Odd("0dd00000.r0", _crl_of(rdn(("CN", bits(b"x"))))),
    "an issuer that is a number": Odd("0dd00000.r0", _crl_of(rdn(("CN", integer(7))))),
    "an issuer without a name": Odd("0dd00000.r0", _crl_of(), told=False),
    "a huge CRL": Odd("0dd00000.r0", _entry(_huge, "0dd00000.r0")),
}
"""CRLs beside the right one."""

ALL = {
    f"{kind}: {what}": odd
    for kind, table in (("CA", CAS), ("entry", ENTRIES), ("CRL", CRLS))
    for what, odd in table.items()
}
"""All of them, each under a name of its own."""
