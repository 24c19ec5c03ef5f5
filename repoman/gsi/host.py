"""A host's certificate: the names that it proves, and whether its CAs stand by it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from service_identity.hazmat import DNS_ID, IPAddress_ID

from repoman.errors import CredentialRefused
from repoman.gsi.alternative_names import read_host_names
from repoman.gsi.ca_directory import CADirectory, read_about
from repoman.gsi.chain import CertificatePath, Link, moment
from repoman.gsi.credential import Credential
from repoman.gsi.encoding import encoding_fault
from repoman.gsi.quietly import quietly
from repoman.gsi.trust import Trust


@quietly()
def host_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names, then addresses, that a certificate is for; without wildcards."""
    try:
        found = read_host_names(certificate)
    except ValueError:
        return ()
    hosts = (name.decode() for name in found.names if b"*" not in name)
    return (*hosts, *(str(ipaddress.ip_address(packed)) for packed in found.addresses))


def host_faults(
    host: Credential, certificate_path: Path, key_path: Path, now: datetime
) -> Iterator[str]:
    """What an operator should mend about a host's credential, a line each.

    :param now: aware, UTC.
    """
    if host.open_to_others:
        yield f"The private key {key_path} can be read by others; run: chmod 600 {key_path}"
    if not host_names(host.certificate):
        yield f"{certificate_path} names no host (no subjectAltName): clients refuse it."
    begins, ends = host.certificate.not_valid_before_utc, host.certificate.not_valid_after_utc
    if not begins <= now <= ends:
        yield (
            f"{certificate_path} is valid from {moment(begins)} to {moment(ends)}:"
            " clients refuse it now."
        )


def is_address(host: str) -> bool:
    """A literal IPv4 or IPv6 address, which is never sent as a server name (RFC 6066, 3)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@quietly()
def proves_name(certificate: x509.Certificate, host: str) -> bool:
    """The certificate's subjectAltName has this host name or address (RFC 9525).

    An entry that is no usable name is skipped.  If nothing is left, or the
    extension cannot be read at all, the answer is no: Twisted's own check lets a
    certificate without subjectAltName pass.
    """
    try:
        wanted = IPAddress_ID(host) if is_address(host) else DNS_ID(host)
        return any(map(wanted.verify, read_host_names(certificate).patterns(host.encode("ascii"))))
    except ValueError:
        return False


@quietly()
def refusal_of_server(
    chain: Sequence[x509.Certificate], place: Path, authorities: CADirectory, now: datetime
) -> str:
    """Why a server's CAs do not stand by its certificate; empty if they do.

    :param chain: as OpenSSL verified it, leaf first.
    :param place: the CA directory.
    :param authorities: the certificates of that directory.
    :param now: aware, UTC.
    """
    if len(chain) == 1:
        return ""  # self-signed, and itself in the directory
    try:
        path = server_path(chain)
        # Below only the files of these CAs are read, and an impostor's are not among them.
        authorities.check_names(path.authorities)
        known = read_about(path.authorities, place, authorities)
        remedy = f"run fetch-crl, which renews what lies in {place}"
        Trust(known, remedy=remedy).check_authorities(path, now)
    except CredentialRefused as refusal:
        return refusal.message
    except Exception as error:  # odd encodings raise anything
        return f"it {encoding_fault(error)}"
    return ""


def server_path(chain: Sequence[x509.Certificate]) -> CertificatePath:
    """Divide a server's verified chain, leaf first: there are no proxies in it.

    A server is known by its host name, and not by its DN, which nobody logs in
    with: it may be empty (RFC 5280, 4.1.2.6), or odd in any way that
    :func:`repoman.gsi.chain.read` refuses in a user's.

    :raises CredentialRefused: a certificate authority has no name.
    """
    leaf, *authorities = [_read(c, is_authority=bool(above)) for above, c in enumerate(chain)]
    if not all(authority.name for authority in authorities):
        raise CredentialRefused(
            "A certificate authority above the server's certificate is unnamed."
        )
    return CertificatePath((), leaf, tuple(authorities))


def _read(certificate: x509.Certificate, *, is_authority: bool) -> Link:
    try:
        name = tuple(
            tuple(sorted((a.oid.dotted_string, _shown(a.value)) for a in rdn))
            for rdn in certificate.subject.rdns
        )
    except (TypeError, ValueError):
        if is_authority:
            raise
        name = ()  # in Latin-1, as old CAs wrote it: as good as none
    try:
        extensions = {extension.oid: extension for extension in certificate.extensions}
    except (TypeError, ValueError, x509.UnsupportedGeneralNameType):
        # One odd name spoils them all.  OpenSSL has judged them; what is asked for below
        # is only whether a CRL would list this certificate.
        constraints = x509.BasicConstraints(is_authority, None)
        extensions = {constraints.oid: x509.Extension(constraints.oid, True, constraints)}
    return Link(certificate, name, extensions)


def _shown(value: object) -> str:
    """A value of a name for signing policies and messages; nobody is told apart by it."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))
