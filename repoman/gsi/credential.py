"""A private key with its certificates, read from PEM files."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator, Sequence, Set
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from repoman.errors import CredentialProblem, TrustUnreadable
from repoman.gsi.chain import moment, read
from repoman.gsi.dn import rdns, shown_name
from repoman.gsi.encoding import encoding_fault
from repoman.gsi.pem import Pem
from repoman.gsi.proxycertinfo import CLAIMS, OLD_NAMES
from repoman.gsi.quietly import quietly

_SHOWN_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1", "brainpool")
"""How the curves are called that TLS 1.3 signs with (RFC 8446, 4.2.3; RFC 8734)."""

_RSASSA_PSS: Final = x509.ObjectIdentifier("1.2.840.113549.1.1.10")
"""A key that may sign in this way only (RFC 4055, 1.2)."""


@frozen(eq=False, repr=False)
class Credential:
    """A key, its certificate, and the certificates to be sent along.

    Whatever else lies in the file, such as an old proxy or somebody's root, is no part of it.

    :ivar certificate: the key's own.
    :ivar chain: its issuer and so on, as far as the file has them, without a root.
    :ivar open_to_others: the key's file can be read by the group or by others.
    :ivar is_cut_off: the file ends in the middle of something.
    """

    certificate: x509.Certificate
    key: Any
    chain: tuple[x509.Certificate, ...]
    open_to_others: bool
    is_cut_off: bool = False

    @property
    def own(self) -> tuple[x509.Certificate, ...]:
        """The proxies, if there are any, and the end entity: all that is not a CA's."""
        whole = (self.certificate, *self.chain)
        return tuple(one for one in whole if not _is_authority(one)) or whole[:1]


LIMIT = 2**20
"""How much of a file is read, in bytes: no credential is as long."""


@quietly()
def read_credential(
    certificate_path: Path,
    key_path: Path,
    *,
    owners: Set[int] | None = None,
    now: datetime | None = None,
) -> Credential:
    """Read PEM files, which may be one file.

    :param owners: the accounts whose files are taken; ``None``: anybody's.
    :param now: aware, UTC: where there is a choice, take what is valid then.
    :raises ValueError: with a sentence for a person.
    """
    text, status = _read(key_path, owners)
    one_file = certificate_path == key_path  # and may be a pipe, which is read once
    # A proxy certificate for the user's key, signed by somebody else, makes the user that one.
    shown = Pem.parse(certificate_path, text if one_file else _read(certificate_path, owners)[0])
    certificates = shown.certificates()
    pairs = _pairs(certificates, Pem.parse(key_path, text).keys(), now)
    if not pairs:
        raise ValueError(
            f"The key in {key_path} does not belong to the certificate in {certificate_path}."
        )
    certificate, key = pairs[0]
    if fault := _why_not_shown(certificate, key):
        raise ValueError(f"The key in {key_path} is {fault}.")
    open_to_others = bool(stat.S_IMODE(status.st_mode) & 0o077)
    chain = tuple(_issuers(certificate, certificates, now))
    return Credential(certificate, key, chain, open_to_others, shown.is_cut_off)


def _pairs(
    certificates: Sequence[x509.Certificate], keys: Sequence[Any], now: datetime | None
) -> list[tuple[x509.Certificate, Any]]:
    """Certificates with their keys, best first: valid ones, then as the file has the keys."""
    found = [
        (_merit(certificate, now), number, certificate, key)
        for number, key in enumerate(keys)
        for certificate in certificates
        if _public(key.public_key()) == _of(certificate)
    ]
    found.sort(key=lambda one: (one[0][0], one[1], one[0][1]))
    return [(certificate, key) for _, _, certificate, key in found]


def _issuers(
    certificate: x509.Certificate, certificates: Sequence[x509.Certificate], now: datetime | None
) -> Iterator[x509.Certificate]:
    """Who signed it, who signed that one, and so on; without a root, which its reader has."""
    left = [one for one in certificates if one != certificate]
    while found := [one for one in left if is_signed_by(certificate, one)]:
        certificate = min(found, key=lambda one: _merit(one, now))
        if _is_called(certificate, by=certificate):
            return
        left.remove(certificate)
        yield certificate


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Its issuer has this name, and this key as far as one can tell."""
    if not _is_called(issuer, by=certificate):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except Exception:
        return True  # signed in a way not known here: by its name, and the server is to judge
    return True


def _is_called(issuer: x509.Certificate, *, by: x509.Certificate) -> bool:
    try:
        return issuer.subject == by.issuer
    except Exception:  # a name that cannot be read raises anything, and is nobody's
        return False


def _merit(certificate: x509.Certificate, now: datetime | None) -> tuple[bool, float]:
    """The least is the best: what is valid, then what lasts longer."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now is not None and not begins <= now <= ends, -ends.timestamp()


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except Exception:  # none, or odd encodings, which raise anything
        return False
    return found.value.ca


def _why_not_shown(certificate: x509.Certificate, key: Any) -> str:
    """Why OpenSSL would drop the certificate in silence, so that its holder were anonymous.

    The signature algorithms of TLS 1.3 decide (RFC 8446, 4.2.3).
    """
    advice = "take one of RSA, P-256, P-384, P-521 or Ed25519"
    if certificate.public_key_algorithm_oid == _RSASSA_PSS:
        return f"for RSASSA-PSS alone, which cannot be shown here; {advice}"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        shown = key.curve.name.startswith(_SHOWN_CURVES)
        return "" if shown else f"on the curve {key.curve.name}, which TLS does not use; {advice}"
    if isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return ""
    return f"of a kind that TLS does not use; {advice}"


def read_host_credential(certificate_path: Path, key_path: Path) -> Credential:
    """Read what a host shows.

    :raises TrustUnreadable: it cannot be used.
    """
    try:
        return read_credential(certificate_path, key_path)
    except ValueError as error:
        raise TrustUnreadable(
            f"{error} Set certificate and key in section [tls] to the host's."
        ) from None


def _read(path: Path, owners: Set[int] | None) -> tuple[bytes, os.stat_result]:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            # Not the path's owner: a link may lead elsewhere by the time it is opened.
            if owners is not None and status.st_uid not in owners:
                raise ValueError(_of_another(path, status.st_uid))
            os.set_blocking(file.fileno(), True)
            return file.read(LIMIT), status
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from None


def _of_another(path: Path, owner: int) -> str:
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"uid {owner}"
    own = "your own" if os.geteuid() else "root's, and under sudo the caller's,"
    return (
        f"{path} belongs to another user ({name}), into whose account your data could go; only"
        f" {own} files are used: name one with --proxy."
    )


def _open_at_once(path: str, flags: int) -> int:
    # Not to wait for the writer of a FIFO that somebody else put there.
    return os.open(path, flags | os.O_NONBLOCK)


def _public(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _of(certificate: x509.Certificate) -> bytes:
    """The public key of a certificate; empty if it is of a kind that is not known."""
    try:
        return _public(certificate.public_key())
    except Exception:
        return b""


@frozen(eq=False, repr=False)
class ClientCredential:
    """A user's proxy, or certificate with key.

    :ivar path: of the certificate, for messages.
    """

    credential: Credential
    path: Path = Path("your credential")

    @property
    def not_after(self) -> datetime:
        """When the first of its proxies, or its end entity, ends (aware, UTC).

        A CA's end is no part of it: the server may have a renewed one.
        """
        return min(certificate.not_valid_after_utc for certificate in self.credential.own)

    @property
    def end_entity(self) -> x509.Certificate:
        """Whose it is."""
        return self.credential.own[-1]

    @classmethod
    def read(
        cls,
        certificate_path: Path,
        key_path: Path | None = None,
        now: datetime | None = None,
        owners: Set[int] | None = None,
    ) -> ClientCredential:
        """Read a credential that is fit to be shown.

        :param key_path: ``None`` for a proxy, which holds its key itself.
        :param now: aware, UTC; ``None`` to take an expired one too.
        :param owners: the accounts whose files are taken; ``None``: root's and one's own.
        :raises CredentialProblem: with what to do about it.
        """
        key_path = key_path or certificate_path
        try:
            # Anybody can put a file of theirs where a proxy is looked for, in /tmp.
            ours = {0, os.geteuid()} if owners is None else owners
            found = read_credential(certificate_path, key_path, owners=ours, now=now)
        except ValueError as error:
            raise CredentialProblem(f"{error} Make a proxy with grid-proxy-init.") from None
        if found.open_to_others:
            raise CredentialProblem(
                f"The private key in {key_path} can be read by others; run: chmod 600 {key_path}"
            )
        shown = cls(found, certificate_path)
        fault = _why_unreadable(shown) or why_incomplete(shown)
        fault = fault or (why_ended(shown, now) if now else "")
        if fault:
            raise CredentialProblem(fault)
        return shown


def why_ended(shown: ClientCredential, now: datetime) -> str:
    """Which of its certificates has expired, and what helps; empty if none has."""
    end_entity = shown.end_entity
    if (end := end_entity.not_valid_after_utc) < now:
        return (
            f"{shown.path} expired at {moment(end)}: the certificate"
            f" {shown_name(lambda: end_entity)} itself has; get a new one from your certificate"
            " authority, then make a new proxy with grid-proxy-init."
        )
    if (end := shown.not_after) < now:
        return f"{shown.path} expired at {moment(end)}; make a new proxy with grid-proxy-init."
    return ""


def _why_unreadable(shown: ClientCredential) -> str:
    """Whose name in it cannot be read, so that no server could tell whose it is."""
    for certificate in (shown.credential.certificate, *shown.credential.chain):
        try:
            _ = certificate.subject, certificate.issuer
        except Exception as error:  # odd encodings raise anything
            return (
                f"A certificate in {shown.path} {encoding_fault(error)}; get a new one from your"
                " certificate authority."
            )
    return ""


def why_incomplete(shown: ClientCredential) -> str:
    """Why nobody can tell whose proxy it is; empty if it ends with a certificate of a CA."""
    last = shown.end_entity
    if not _claims_to_be_proxy(last):
        return ""
    cut = ": it is cut off in the middle" if shown.credential.is_cut_off else ""
    return (
        f"{shown.path} lacks the certificate that signed the proxy {shown_name(lambda: last)}{cut};"
        " make a new proxy with grid-proxy-init."
    )


def _claims_to_be_proxy(certificate: x509.Certificate) -> bool:
    try:
        link = read(certificate)
        above = rdns(certificate.issuer)
    except Exception:  # odd encodings raise anything, and the server is to judge them
        return False
    last = [value for _, value in link.name[-1]]
    is_old = link.name[:-1] == above and len(last) == 1 and last[0] in OLD_NAMES
    return is_old or bool(link.extensions.keys() & CLAIMS)
