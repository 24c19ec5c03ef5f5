"""The user's credential as it is now: a proxy that is renewed while we work is taken up."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from repoman.client.credentials import CredentialFiles
from repoman.gsi.credential import ClientCredential
from repoman.tls import ClientTLS


@implementer(IPolicyForHTTPS)
class RenewableTLS:
    """Shows what the files hold when a connection is made, and never what has expired."""

    def __init__(self, files: CredentialFiles | None, ca_directory: Path) -> None:
        """Read everything once.

        :param files: ``None``: show nothing, as anybody.
        :raises CredentialProblem: missing, expired, or open to others.
        :raises TrustUnreadable: the CA directory is of no use.
        """
        self._files, self._ca_directory = files, ca_directory
        self._read()

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """Make a connection to one server.

        :raises CredentialProblem: the credential has expired, or is gone.
        """
        if self._stamp() != self._seen or self._ends <= datetime.now(timezone.utc):
            self._read()
        return self._tls.creatorForNetloc(hostname, port)

    def _read(self) -> None:
        self._seen = self._stamp()
        shown, self._ends = None, datetime.max.replace(tzinfo=timezone.utc)
        if self._files is not None:
            now = datetime.now(timezone.utc)
            shown = ClientCredential.read(
                self._files.certificate, self._files.key, now, self._files.owners
            )
            self._ends = shown.not_after
        self._tls = ClientTLS(shown, self._ca_directory)

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        """Differs when somebody has replaced a file."""
        if self._files is None:
            return ()
        stamps = []
        for path in (self._files.certificate, self._files.key):
            try:
                state = os.stat(path)
                stamps.append((state.st_ino, state.st_mtime_ns))
            except OSError:
                stamps.append((0, 0))
        return tuple(stamps)
