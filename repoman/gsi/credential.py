"""A private key with its certificates, read from PEM files."""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from repoman.errors import CredentialProblem, TrustUnreadable
from repoman.gsi.chain import moment
from repoman.gsi.quietly import quietly


@frozen(eq=False, repr=False)
class Credential:
    """A key, its certificate, and the certificates to be sent along.

    :ivar certificate: the key's own.
    :ivar chain: the rest of the file: for a proxy, those up to the end entity.
    :ivar open_to_others: the key's file can be read by the group or by others.
    """

    certificate: x509.Certificate
    key: Any
    chain: tuple[x509.Certificate, ...]
    open_to_others: bool


@quietly()
def read_credential(
    certificate_path: Path, key_path: Path, *, of_anybody: bool = True
) -> Credential:
    """Read PEM files, which may be one file.

    :param of_anybody: false to refuse a key in another user's file.
    :raises ValueError: with a sentence for a person.
    """
    text, status = _read(key_path, of_anybody=of_anybody)
    certificates = _certificates(certificate_path)
    key = _key(text, key_path)
    if _public(key.public_key()) != _public(certificates[0].public_key()):
        raise ValueError(
            f"The key in {key_path} does not belong to the certificate in {certificate_path}."
        )
    open_to_others = bool(stat.S_IMODE(status.st_mode) & 0o077)
    return Credential(certificates[0], key, tuple(certificates[1:]), open_to_others)


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


def _read(path: Path, *, of_anybody: bool = True) -> tuple[bytes, os.stat_result]:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            # Not the path's owner: a link may lead elsewhere by the time it is opened.
            if not of_anybody and os.geteuid() not in (0, status.st_uid):
                raise ValueError(f"{path} belongs to another user.")
            os.set_blocking(file.fileno(), True)
            return file.read(), status
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from None


def _open_at_once(path: str, flags: int) -> int:
    # Not to wait for the writer of a FIFO that somebody else put there.
    return os.open(path, flags | os.O_NONBLOCK)


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path)[0])
    except ValueError as error:
        if "cannot be read" in str(error):
            raise
        raise ValueError(f"{path} holds no certificate in PEM form.") from None


def _key(text: bytes, path: Path) -> Any:
    # A proxy's key stands between two certificates.
    start = text.rfind(b"-----BEGIN", 0, max(text.find(b"PRIVATE KEY-----"), 0))
    try:
        # The test of an RSA key's primes takes up to 0.3 s, each time that the daemon
        # reads its key again; that the key fits the certificate is tested anyhow.
        return load_pem_private_key(
            text[max(start, 0) :], None, unsafe_skip_rsa_key_validation=True
        )
    except TypeError:
        raise ValueError(f"The key in {path} is protected by a pass phrase.") from None
    except Exception:
        raise ValueError(f"{path} holds no private key in PEM form.") from None


def _public(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@frozen(eq=False, repr=False)
class ClientCredential:
    """A user's proxy, or certificate with key.

    :ivar not_after: when the first certificate of the file ends (aware, UTC).
    """

    credential: Credential

    @property
    def not_after(self) -> datetime:
        """When the first of its certificates ends (aware, UTC)."""
        all_of_it = (self.credential.certificate, *self.credential.chain)
        return min(certificate.not_valid_after_utc for certificate in all_of_it)

    @classmethod
    def read(
        cls, certificate_path: Path, key_path: Path | None = None, now: datetime | None = None
    ) -> ClientCredential:
        """Read a credential that is fit to be shown.

        :param key_path: ``None`` for a proxy, which holds its key itself.
        :param now: aware, UTC; ``None`` to take an expired one too.
        :raises CredentialProblem: with what to do about it.
        """
        key_path = key_path or certificate_path
        try:
            # Anybody can put a file of theirs where a proxy is looked for, in /tmp.
            found = cls(read_credential(certificate_path, key_path, of_anybody=False))
        except ValueError as error:
            raise CredentialProblem(f"{error} Make a proxy with grid-proxy-init.") from None
        if found.credential.open_to_others:
            raise CredentialProblem(
                f"The private key in {key_path} can be read by others; run: chmod 600 {key_path}"
            )
        if now is not None and found.not_after < now:
            raise CredentialProblem(
                f"{certificate_path} expired at {moment(found.not_after)};"
                " make a new proxy with grid-proxy-init."
            )
        return found
