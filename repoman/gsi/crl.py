"""What is known about a CA's revocations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Final, Literal

from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from repoman.errors import CredentialRefused
from repoman.gsi.chain import Link, moment

Mode = Literal["require", "if-present", "off"]
"""How much is demanded: that it exists, that it holds if it exists, or nothing."""

FOREVER: Final = datetime.max.replace(tzinfo=timezone.utc)
"""Later than everything."""

TELL: Final = "tell the administrator of this server"
"""What a client can do about a CRL of the server's."""


@frozen(eq=False)
class CrlFile:
    """A file that should hold a CRL.

    :ivar name: of the file, for messages.
    :ivar crl: its content; ``None`` if it cannot be used.
    :ivar fault: why not.
    :ivar issuer: of the CRL.
    :ivar point: what it is about, if not everything (RFC 5280, 5.2.5).
    """

    name: str
    crl: x509.CertificateRevocationList | None = None
    fault: str = ""
    issuer: x509.Name | None = None
    point: x509.IssuingDistributionPoint | None = None

    def covers(self, certificate: Link) -> bool:
        """It would list this certificate, if it were revoked."""
        point = self.point
        if point is None:
            return True
        if certificate.is_authority:
            right_kind = not point.only_contains_user_certs
        else:
            right_kind = not point.only_contains_ca_certs
        return right_kind and (point.full_name is None or _names_place(certificate, point))


def _names_place(certificate: Link, point: x509.IssuingDistributionPoint) -> bool:
    places = certificate.extension(ExtensionOID.CRL_DISTRIBUTION_POINTS) or ()
    wanted = point.full_name or ()
    return any(name in (place.full_name or ()) for place in places for name in wanted)


def parse_crl(name: str, content: bytes) -> CrlFile:
    """Read a CRL, PEM or DER; never raises."""
    try:
        if b"-----BEGIN X509 CRL-----" in content:
            crl = x509.load_pem_x509_crl(content)
        else:
            crl = x509.load_der_x509_crl(content)
        found = {extension.oid: extension for extension in crl.extensions}
        # All that will be asked of it is asked here once: what is broken raises here.
        _ = crl.last_update_utc, crl.next_update_utc, _lists(crl, 0)
        issuer, fault = crl.issuer, _fault(found.values())
    except Exception:  # the decoder raises various things at broken bytes
        return CrlFile(name, None, "holds no CRL that can be read")
    if fault:
        return CrlFile(name, None, fault)
    point = found.get(ExtensionOID.ISSUING_DISTRIBUTION_POINT)
    return CrlFile(name, crl, "", issuer, None if point is None else point.value)


def _fault(extensions: Iterable[x509.Extension[Any]]) -> str:
    for extension in extensions:
        if isinstance(extension.value, x509.DeltaCRLIndicator):
            return "is a delta CRL, which is not supported"
        if isinstance(extension.value, x509.IssuingDistributionPoint):
            if fault := _partial(extension.value):
                return f"is {fault}, which is not supported"
        elif extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            return f"has a critical extension that is not known ({extension.oid.dotted_string})"
    return ""


def _partial(point: x509.IssuingDistributionPoint) -> str:
    if point.indirect_crl:
        return "an indirect CRL"
    if point.only_some_reasons:
        return "a CRL for some reasons only"
    if point.only_contains_attribute_certs:
        return "a CRL of attribute certificates"
    return "a CRL with a relative name" if point.relative_name else ""


def signed_by(file: CrlFile, issuer: x509.Certificate) -> CrlFile:
    """The same file, at fault unless the CRL bears the issuer's signature."""
    if file.crl is None:
        return file
    try:
        valid = file.crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # a key that signs no CRLs raises
    except Exception:
        valid = False
    return file if valid else CrlFile(file.name, None, "is not signed by its certificate authority")


def check_revocation(
    certificate: Link,
    issuer: Link,
    files: tuple[CrlFile, ...],
    mode: Mode,
    now: datetime,
    remedy: str = TELL,
) -> datetime:
    """Check a certificate against its issuer's CRLs.

    :param files: all that may be the issuer's, sorted out by :func:`signed_by`.
    :param remedy: what is to be done about a CRL that does not hold.
    :returns: until when the answer holds (aware, UTC).
    :raises CredentialRefused: it is revoked, or nobody can tell.
    """
    if mode == "off" or (mode == "if-present" and not files):
        return FOREVER
    if not files:
        raise CredentialRefused(f"There is no CRL of the certificate authority {issuer.dn}.")
    if any(_lists(crl, certificate.certificate.serial_number) for crl in _good(files)):
        raise CredentialRefused(f"{certificate.dn} was revoked by {issuer.dn}.")
    good = _good(file for file in files if file.covers(certificate))
    ends = max((_end(crl) for crl in good if crl.last_update_utc <= now), default=None)
    if ends is None or ends < now:
        why = why_useless(files, now) or f"is not about {certificate.dn}"
        raise CredentialRefused(
            f"The CRL of the certificate authority {issuer.dn} {why}; {remedy}."
        )
    return ends


def why_narrow(files: Sequence[CrlFile], authority: Link) -> str:
    """Why a CA's CRLs are not about everybody below it; empty if they are."""
    good = [file for file in files if file.crl is not None]
    if authority.is_root and not any(file.covers(authority) for file in good):
        return "is not about the authority itself"
    if all(file.point is not None and file.point.only_contains_ca_certs for file in good):
        return "is not about users"
    return ""


def why_useless(files: Sequence[CrlFile], now: datetime) -> str:
    """Why none of a CA's CRLs holds now; empty if one does."""
    good = _good(files)
    begun = [crl for crl in good if crl.last_update_utc <= now]
    if any(_end(crl) >= now for crl in begun):
        return ""
    if begun:
        return f"expired at {moment(max(map(_end, begun)))}"
    if good:
        return f"is not valid before {moment(min(crl.last_update_utc for crl in good))}"
    return "cannot be used"


def _good(files: Iterable[CrlFile]) -> list[x509.CertificateRevocationList]:
    # "is not None": a CRL that revokes nobody is an empty collection, and false.
    return [file.crl for file in files if file.crl is not None]


def _lists(crl: x509.CertificateRevocationList, serial: int) -> bool:
    return crl.get_revoked_certificate_by_serial_number(serial) is not None


def _end(crl: x509.CertificateRevocationList) -> datetime:
    return crl.next_update_utc or FOREVER
