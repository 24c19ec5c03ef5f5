"""A private key with its certificates, read from PEM files."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Set
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


LIMIT = 2**20
"""How much of a file is read, in bytes: no credential is as long."""


def read_credential(
    certificate_path: Path, key_path: Path, *, owners: Set[int] | None = None
) -> Credential:
    """Read PEM files, which may be one file.

    :param owners: the accounts whose files are taken; ``None``: anybody's.
    :raises ValueError: with a sentence for a person.
    """
    text, status = _read(key_path, owners)
    certificates = _certificates(certificate_path, owners)
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


def _certificates(path: Path, owners: Set[int] | None) -> list[x509.Certificate]:
    # A proxy certificate for the user's key, signed by somebody else, makes the user that one.
    text, _ = _read(path, owners)
    try:
        return x509.load_pem_x509_certificates(text)
    except ValueError:
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
            found = cls(read_credential(certificate_path, key_path, owners=ours))
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
