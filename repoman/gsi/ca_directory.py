"""A directory of certificate authorities in the IGTF's layout.

``HASH.0`` holds a CA's certificate, ``HASH.r0`` its CRL, ``HASH.signing_policy``
and ``HASH.namespaces`` the names that it may issue.  The hashes only tie the
files together: which CA a certificate or CRL belongs to is read from its
content, so a directory with wrong hashes works too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from repoman.errors import CredentialRefused, TrustUnreadable
from repoman.gsi.chain import Link, read
from repoman.gsi.crl import CrlFile, parse_crl, signed_by
from repoman.gsi.dn import likeness, rdns
from repoman.gsi.signing_policy import NamePolicy, parse_namespaces, parse_signing_policy
from repoman.gsi.steps import Steps, finish

LAYOUT: Final = re.compile(r".+\.(?:[0-9]+|r[0-9]+|signing_policy|namespaces)")
"""What belongs to the layout; anything else in the directory is not looked at."""


@frozen
class File:
    """A file of the directory.

    :ivar fault: why it could not be read; empty if it could.
    """

    name: str
    content: bytes = b""
    fault: str = ""

    def is_a(self, kind: str) -> bool:
        """The name ends so: a regular expression for ``0``, ``r0``, ``namespaces``."""
        return re.fullmatch(rf".+\.(?:{kind})", self.name) is not None


def stem(name: str) -> str:
    """The hash, or whatever ties the files of one CA together."""
    return name.rpartition(".")[0]


@frozen(eq=False)
class Authority:
    """A CA with all that the directory says about it.

    :ivar names: of the files with its certificate.
    :ivar crls: the files that may hold its CRL.
    :ivar policies: what it may issue.
    :ivar policy_faults: policies that cannot be used, a line each.
    """

    certificate: x509.Certificate
    names: tuple[str, ...] = ()
    crls: tuple[CrlFile, ...] = ()
    policies: tuple[NamePolicy, ...] = ()
    policy_faults: tuple[str, ...] = ()


@frozen(eq=False)
class CADirectory:
    """All authorities that are trusted.

    :ivar crls: every CRL that could be read, also of authorities that are not
        in the directory themselves.
    :ivar faults: a line for each file that is of no use, by name.
    """

    authorities: tuple[Authority, ...] = ()
    crls: tuple[CrlFile, ...] = ()
    faults: tuple[str, ...] = ()
    _by_certificate: dict[x509.Certificate, Authority] = field(init=False)
    _by_key: dict[_Key, Authority] = field(init=False)
    _names: frozenset[_Likeness] = field(init=False)

    @_by_certificate.default
    def _index_certificates(self) -> dict[x509.Certificate, Authority]:
        return {authority.certificate: authority for authority in self.authorities}

    @_by_key.default
    def _index_keys(self) -> dict[_Key, Authority]:
        return {_key(authority.certificate): authority for authority in self.authorities}

    @_names.default
    def _index_names(self) -> frozenset[_Likeness]:
        return frozenset(name for name, _ in self._by_key)

    def trusts(self, certificate: x509.Certificate) -> bool:
        """The very certificate lies in the directory."""
        return certificate in self._by_certificate

    def find(self, certificate: x509.Certificate) -> Authority:
        """What is known about the CA with this certificate's name and key.

        A sub-CA that only the peer showed has CRLs at most.
        """
        known = self._known(certificate)
        return known or Authority(certificate, crls=_crls_of(certificate, (), self.crls))

    def _known(self, certificate: x509.Certificate) -> Authority | None:
        return self._by_certificate.get(certificate) or self._by_key.get(_key(certificate))

    def holds(self, certificate: x509.Certificate) -> bool:
        """The CA with this certificate's name and key lies in the directory."""
        return self._known(certificate) is not None

    def check_names(self, authorities: Iterable[Link]) -> None:
        """Check that no CA bears the name of one in the directory without having its key.

        Any CA can sign a sub-CA of any name, and who is bound to a CA is bound to a name.

        :raises CredentialRefused: one does.
        """
        for link in authorities:
            if likeness(link.name) in self._names and not self.holds(link.certificate):
                raise CredentialRefused(
                    f"The certificate authority {link.dn} bears the name of one that is trusted"
                    " here, but has another key."
                )


_Likeness = tuple[tuple[str, str], ...]
_Key = tuple[_Likeness, bytes]
"""What a CA is known by: its name, however it is written, and its public key."""


def _key(certificate: x509.Certificate) -> _Key:
    # A renewed or cross-signed certificate with the same name and key is the same CA.
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return likeness(rdns(certificate.subject)), key


def read_files(directory: Path, wanted: re.Pattern[str] = LAYOUT) -> list[File]:
    """Read the files of the layout, in the order of their names.

    :param wanted: the names.
    :raises TrustUnreadable: there is no such directory, or it is closed to us.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if wanted.fullmatch(path.name))
    except OSError as error:
        raise TrustUnreadable(
            f"The CA directory {directory} cannot be read ({error.strerror}): install your grid's"
            " CA certificates there, or name another directory."
        ) from None
    return [_read(path) for path in paths]


def fingerprint(paths: Iterable[Path]) -> frozenset[tuple[str, int, int, int]]:
    """What tells whether files, or those in a directory, were replaced or changed."""
    found = set()
    for path in paths:
        with contextlib.suppress(OSError):
            for entry in path.iterdir() if path.is_dir() else [path]:
                found.add(_state(entry))
    return frozenset(found)


def _state(path: Path) -> tuple[str, int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> File:
    try:
        return File(path.name, path.read_bytes())
    except OSError as error:
        return File(path.name, fault=f"cannot be read ({error.strerror})")


def build(files: Sequence[File]) -> Steps[CADirectory]:
    """Tie the files together.

    What is of no use becomes a fault of the directory; nothing is raised.
    """
    certificates, faults = _certificates(file for file in files if file.is_a("[0-9]+"))
    crls = []
    for file in files:
        if file.is_a("r[0-9]+"):
            crls.append(_crl(file))
            yield
    authorities = []
    for certificate, names in certificates.items():
        authorities.append(_authority(certificate, names, files, crls))
        yield
    faults += _crl_faults(crls, authorities)
    faults += (fault for authority in authorities for fault in authority.policy_faults)
    readable = tuple(crl for crl in crls if crl.crl is not None)
    return CADirectory(tuple(authorities), readable, tuple(dict.fromkeys(faults)))


def read_authorities(directory: Path) -> CADirectory:
    """Read the certificates alone: the rest takes long, and a client meets only few CAs.

    :raises TrustUnreadable: there is no such directory, or it is closed to us.
    """
    return finish(build(read_files(directory, re.compile(r".+\.[0-9]+"))))


def _certificates(files: Iterable[File]) -> tuple[dict[x509.Certificate, list[str]], list[str]]:
    """Each certificate once, with the files that it is in: hashes come in two kinds."""
    found: dict[x509.Certificate, list[str]] = {}
    faults = []
    for file in files:
        try:
            for certificate in x509.load_pem_x509_certificates(file.content):
                read(certificate)
                found.setdefault(certificate, []).append(file.name)
        except Exception as error:  # the decoder raises various things at broken bytes
            faults.append(f"{file.name} {file.fault or f'holds no CA certificate: {error}'}")
    return found, faults


def _crl(file: File) -> CrlFile:
    if file.fault:
        return CrlFile(file.name, None, file.fault)
    return parse_crl(file.name, file.content)


def _authority(
    certificate: x509.Certificate,
    names: Collection[str],
    files: Iterable[File],
    crls: Iterable[CrlFile],
) -> Authority:
    stems = set(map(stem, names))
    policies: list[NamePolicy] = []
    faults: list[str] = []
    for file in files:
        if stem(file.name) in stems and file.is_a("signing_policy|namespaces"):
            try:
                policies.append(_policy(file, certificate.subject))
            except ValueError as error:
                faults.append(f"{file.name} {error}")
    own = _crls_of(certificate, stems, crls)
    return Authority(certificate, tuple(names), own, tuple(policies), tuple(faults))


def _crls_of(
    certificate: x509.Certificate, stems: Collection[str], crls: Iterable[CrlFile]
) -> tuple[CrlFile, ...]:
    """The CRLs with the CA's name, and those that lie beside it: a broken one has no name."""
    name = certificate.subject
    return tuple(
        signed_by(file, certificate)
        for file in crls
        if file.issuer == name or stem(file.name) in stems
    )


def _policy(file: File, own: x509.Name) -> NamePolicy:
    if file.fault:
        raise ValueError(file.fault)
    text = file.content.decode("utf-8", "replace")
    if file.is_a("namespaces"):
        return parse_namespaces(text, file.name, own)
    return parse_signing_policy(text, file.name)


def _crl_faults(crls: Iterable[CrlFile], authorities: Iterable[Authority]) -> list[str]:
    """CRLs of no use to any CA; CAs of one name have their files side by side."""
    used = [crl for authority in authorities for crl in authority.crls]
    good = {crl.name for crl in used if not crl.fault}
    faults = {crl.name: crl.fault for crl in (*crls, *used) if crl.fault}
    return [f"{name} {fault}" for name, fault in faults.items() if name not in good]
