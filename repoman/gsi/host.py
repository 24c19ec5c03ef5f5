"""A host's certificate: the names that it proves, and whether its CAs stand by it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity

from repoman.errors import CredentialRefused
from repoman.gsi.ca_directory import CADirectory, build, read_files, stem
from repoman.gsi.chain import divide, moment
from repoman.gsi.credential import Credential
from repoman.gsi.quietly import quietly
from repoman.gsi.steps import finish
from repoman.gsi.trust import Trust


@quietly()
def host_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names, then addresses, that a certificate is for; without wildcards."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    hosts = names.get_values_for_type(x509.DNSName)
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return tuple(name for name in (*hosts, *addresses) if "*" not in name)


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

    Whatever is odd about it, the answer is no: Twisted's own check lets a
    certificate without subjectAltName pass.
    """
    try:
        wanted = IPAddress_ID(host) if is_address(host) else DNS_ID(host)
        verify_service_identity(extract_patterns(certificate), [wanted], [])
    except Exception:
        return False
    return True


@quietly()
def refusal_of_server(
    chain: Sequence[x509.Certificate], place: Path, authorities: CADirectory, now: datetime
) -> str:
    """Why a server's CAs do not stand by its certificate; empty if they do.

    Reads what the CA directory says about these CAs only: what is there about
    ninety-nine others would take long.

    :param chain: as OpenSSL verified it, leaf first.
    :param place: the CA directory.
    :param authorities: the certificates of that directory.
    :param now: aware, UTC.
    """
    if len(chain) == 1:
        return ""  # self-signed, and itself in the directory
    try:
        path = divide(chain)
        names = [name for ca in path.authorities for name in authorities.find(ca.certificate).names]
        stems = "|".join(re.escape(stem(name)) for name in names)
        files = read_files(place, re.compile(rf"(?:{stems})\.\w+"))
        Trust(finish(build(files))).check_authorities(path, now)
    except CredentialRefused as refusal:
        return refusal.message
    except Exception as error:  # odd encodings raise anything
        return f"it could not be judged ({type(error).__name__})"
    return ""
