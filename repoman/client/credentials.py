"""Which certificate the client shows, and which CAs it believes.

The choice is a pure function of options, environment, configuration and the
files that exist; the first place that names or holds a credential wins.  What
somebody named explicitly is never skipped, also when it is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import evolve, frozen

from repoman.client.settings import expanded, home_of
from repoman.client.sudo import believed_owners, sudo_uid
from repoman.errors import CredentialProblem, TrustUnreadable

GRID_CA_DIRECTORY = Path("/etc/grid-security/certificates")
"""Where grid machines keep the certificates of CAs."""

MAKE_PROXY = "run grid-proxy-init"
"""What to do about most problems with a proxy."""


@frozen
class CredentialFiles:
    """Where a credential lies.

    :ivar source: what named it, for messages: ``--proxy``, ``$X509_USER_PROXY``...
    :ivar owners: the accounts that the files may belong to; ``None``: this process's and root.
    """

    certificate: Path
    key: Path
    source: str
    owners: frozenset[int] | None = None

    def __str__(self) -> str:
        return f"{self.certificate} ({self.source})"


@frozen
class Named:
    """What the command line and the configuration name; empty: nothing."""

    proxy: str = ""
    certificate: str = ""
    key: str = ""
    configured_proxy: str = ""
    ca_directory: str = ""


def find_credential(
    named: Named,
    environ: Mapping[str, str],
    uid: int,
    exists: Callable[[Path], bool] = Path.exists,
) -> CredentialFiles | None:
    """The credential to use; ``None`` if nobody named one and none is in its usual place.

    :param uid: of this process; under sudo the caller's counts.
    :raises CredentialProblem: of a pair only one half is named, or what is
        named is missing.
    :raises Misconfigured: ``$SUDO_UID`` is no account's number.
    """
    found = _find(named, environ, uid, exists)
    return found and evolve(found, owners=believed_owners(environ, uid))


def _find(
    named: Named, environ: Mapping[str, str], uid: int, exists: Callable[[Path], bool]
) -> CredentialFiles | None:
    explicit = (
        _pair(named.proxy, named.proxy, "--proxy", "--proxy")
        or _pair(named.certificate, named.key, "--cert", "--key")
        or _variables(environ, "X509_USER_PROXY", "X509_USER_PROXY")
        or _variables(environ, "X509_USER_CERT", "X509_USER_KEY")
        or _pair(named.configured_proxy, named.configured_proxy, "configuration", "configuration")
    )
    if explicit:
        for path in (explicit.certificate, explicit.key):
            if not exists(path):
                raise CredentialProblem(
                    f"There is no file {path}, which {explicit.source} names; "
                    f"{MAKE_PROXY}, or name the right file."
                )
        return explicit
    return next((c for c in _usual(environ, uid) if exists(c.certificate) and exists(c.key)), None)


def _pair(certificate: str, key: str, source: str, other: str) -> CredentialFiles | None:
    if not (certificate or key):
        return None
    if not (certificate and key):
        given, missing = (source, other) if certificate else (other, source)
        raise CredentialProblem(f"{given} needs {missing} beside it.")
    return CredentialFiles(expanded(certificate), expanded(key), source)


def _variables(environ: Mapping[str, str], cert: str, key: str) -> CredentialFiles | None:
    return _pair(environ.get(cert, ""), environ.get(key, ""), f"${cert}", f"${key}")


def _usual(environ: Mapping[str, str], uid: int) -> tuple[CredentialFiles, ...]:
    """The places where grid tools put credentials, best first."""
    proxy = Path(f"/tmp/x509up_u{sudo_uid(environ, uid) or uid}")  # noqa: S108 -- where grid-proxy-init puts it
    globus = home_of(environ) / ".globus"
    return (
        CredentialFiles(proxy, proxy, "the usual place"),
        CredentialFiles(globus / "usercert.pem", globus / "userkey.pem", "the usual place"),
    )


def no_credential() -> CredentialProblem:
    """The error for somebody who has none."""
    return CredentialProblem(
        f"You have no proxy certificate in any of the usual places; {MAKE_PROXY}, "
        "or name one with --proxy."
    )


def find_ca_directory(
    named: Named, environ: Mapping[str, str], grid_directory: Path = GRID_CA_DIRECTORY
) -> Path:
    """The directory with the certificates of the CAs to believe.

    :raises TrustUnreadable: what was named is no directory, or none is found.
    """
    explicit = (
        ("--ca-dir", named.ca_directory),
        ("$X509_CERT_DIR", environ.get("X509_CERT_DIR", "")),
    )
    for source, text in explicit:
        if text:
            path = expanded(text)
            if not path.is_dir():
                raise TrustUnreadable(
                    f"{path}, which {source} names, is not a directory; install your grid's CAs"
                    " there, or name their directory with --ca-dir."
                )
            return path
    usual = (home_of(environ) / ".globus" / "certificates", grid_directory)
    for path in usual:
        if path.is_dir():
            return path
    raise TrustUnreadable(
        f"There are no CA certificates: neither {usual[0]} nor {usual[1]} is a directory; install"
        " your grid's CAs there, or name their directory with --ca-dir."
    )
