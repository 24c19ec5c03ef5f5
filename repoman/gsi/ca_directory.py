"""A directory of certificate authorities in the IGTF's layout.

``HASH.0`` holds a CA's certificate, ``HASH.r0`` its CRL, ``HASH.signing_policy``
and ``HASH.namespaces`` the names that it may issue.  The hashes only tie the
files together: which CA a certificate or CRL belongs to is read from its
content, so a directory with wrong hashes works too.

Whatever is wrong with a file, it costs no more than itself: it becomes a fault
of the directory, and all others are used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from repoman.errors import CredentialRefused
from repoman.gsi.ca_files import CERTIFICATES, File, read_files, shown, stem
from repoman.gsi.chain import Link, read
from repoman.gsi.crl import CrlFile, parse_crl, signed_by
from repoman.gsi.dn import dn_text, likeness, rdns
from repoman.gsi.quietly import quietly
from repoman.gsi.signing_policy import NamePolicy, parse_namespaces, parse_signing_policy
from repoman.gsi.steps import Steps, finish

LONGEST_FAULT: Final = 300
"""How many letters of a fault are told: files put words of theirs into it."""


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

    @property
    @quietly()
    def subject(self) -> x509.Name:
        """Its name."""
        return self.certificate.subject

    @property
    def dn(self) -> str:
        """Its name, printed."""
        return dn_text(self.subject)


@frozen(eq=False)
class CADirectory:
    """All authorities that are trusted.

    :ivar crls: every CRL that could be read, also of authorities that are not
        in the directory themselves.
    :ivar faults: a line for each file that is of no use, by name.
    :ivar unsigned_crls: the names of files with CRLs of no use to any authority here.
    """

    authorities: tuple[Authority, ...] = ()
    crls: tuple[CrlFile, ...] = ()
    faults: tuple[str, ...] = ()
    unsigned_crls: frozenset[str] = frozenset()
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
        if certificate in self._by_certificate:
            return self._by_certificate[certificate]
        try:
            return self._by_key.get(_key(certificate))
        except CredentialRefused:
            return None  # no CA with so odd a name is taken from the directory

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


@quietly()
def _key(certificate: x509.Certificate) -> _Key:
    # A renewed or cross-signed certificate with the same name and key is the same CA.
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return likeness(rdns(certificate.subject)), key


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
    crl_faults = _crl_faults(crls, authorities)
    faults += (f"{name} {fault}" for name, fault in crl_faults.items())
    faults += (fault for authority in authorities for fault in _policy_faults(authority))
    readable = tuple(crl for crl in crls if crl.crl is not None)
    told = (shown(fault)[:LONGEST_FAULT] for fault in faults)
    return CADirectory(
        tuple(authorities), readable, tuple(dict.fromkeys(told)), frozenset(crl_faults)
    )


@quietly()
def files_about(
    chain: Iterable[x509.Certificate], files: Sequence[File], directory: CADirectory
) -> list[File]:
    """The files that matter to a certificate: of its authorities, up to the root.

    Where an authority is not to be found, what could be its file matters too: any that
    cannot be used.

    :param chain: the certificate, and what is shown with it.
    :param directory: made of these files.
    """
    names = {certificate.issuer for certificate in chain}
    known: list[Authority] = []
    if not names:
        return []
    while more := [a for a in directory.authorities if a.subject in names and a not in known]:
        known += more
        names |= {authority.certificate.issuer for authority in more}
    found = {name for a in known for name in (*a.names, *(crl.name for crl in a.crls))}
    if not known:
        used = {name for authority in directory.authorities for name in authority.names}
        found = {file.name for file in files if file.is_a("[0-9]+")} - used
    stems = set(map(stem, found))
    return [file for file in files if stem(file.name) in stems]


def read_about(links: Sequence[Link], place: Path, authorities: CADirectory) -> CADirectory:
    """Read what the CA directory says about these CAs only.

    What is there about ninety-nine others would take long.

    :param authorities: the certificates of that directory.
    :raises TrustUnreadable: there is no such directory, or it is closed to us.
    """
    names = [name for link in links for name in authorities.find(link.certificate).names]
    stems = "|".join(re.escape(stem(name)) for name in names)
    return finish(build(read_files(place, re.compile(rf"(?:{stems})\.\w+"))))


def read_authorities(directory: Path) -> CADirectory:
    """Read the certificates alone: the rest takes long, and a client meets only few CAs.

    :raises TrustUnreadable: there is no such directory, or it is closed to us.
    """
    return finish(build(read_files(directory, CERTIFICATES)))


def _certificates(files: Iterable[File]) -> tuple[dict[x509.Certificate, list[str]], list[str]]:
    """Each certificate once, with the files that it is in: hashes come in two kinds."""
    found: dict[x509.Certificate, list[str]] = {}
    faults = []
    for file in files:
        blocks = _PEM.findall(file.content)
        if not blocks:
            faults.append(f"{file.name} {file.fault or 'holds no CA certificate in PEM form'}")
        for block in blocks:
            try:
                found.setdefault(_certificate(block), []).append(file.name)
            except ValueError as error:
                faults.append(f"{file.name} {error}")
    return found, faults


_PEM = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----.*?(?:-----END (?:X509 )?CERTIFICATE-----|\Z)",
    re.DOTALL,
)


@quietly()
def _certificate(block: bytes) -> x509.Certificate:
    """A certificate that everything can be asked that anybody will ask.

    :raises ValueError: it is of no use, with the reason.
    """
    try:
        certificate = x509.load_pem_x509_certificate(block)
        _ = hash(certificate), read(certificate).dn, certificate.issuer
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except CredentialRefused as error:
        reason = error.message[:1].lower() + error.message[1:].rstrip(".")
        raise ValueError(f"holds a CA certificate that is not used: {reason}") from None
    except Exception:  # the decoder raises various things at broken bytes
        raise ValueError("holds a CA certificate that is not validly encoded") from None
    try:
        _key(certificate)
    except Exception:
        kind = certificate.public_key_algorithm_oid.dotted_string
        raise ValueError(f"holds a CA certificate with an unknown kind of key ({kind})") from None
    return certificate


@quietly()
def _crl(file: File) -> CrlFile:
    if file.fault:
        return CrlFile(file.name, None, file.fault)
    return parse_crl(file.name, file.content)


@quietly()
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
    text = file.content.decode("utf-8-sig", "replace")
    if file.is_a("namespaces"):
        return parse_namespaces(text, file.name, own)
    return parse_signing_policy(text, file.name)


def _policy_faults(authority: Authority) -> list[str]:
    """Policies of no use, and what in the others has no effect."""
    remarks = (
        f"{policy.file} {remark}"
        for policy in authority.policies
        for remark in policy.remarks_on(authority.dn)
    )
    return [*authority.policy_faults, *remarks]


def _crl_faults(crls: Iterable[CrlFile], authorities: Iterable[Authority]) -> dict[str, str]:
    """Why CRLs are of no use to any CA; CAs of one name have their files side by side."""
    used = [crl for authority in authorities for crl in authority.crls]
    good = {crl.name for crl in used if not crl.fault}
    faults = {crl.name: crl.fault for crl in (*crls, *used) if crl.fault}
    return {name: fault for name, fault in faults.items() if name not in good}
