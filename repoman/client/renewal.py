"""The user's credential as it is now: a proxy that is renewed while we work is taken up."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from repoman.client.credentials import CredentialFiles
from repoman.client.problems import ISeesItself
from repoman.errors import CredentialProblem, RepomanError
from repoman.gsi import examination
from repoman.gsi.advice import Sight
from repoman.gsi.credential import ClientCredential
from repoman.gsi.dn import shown_name
from repoman.tls import ClientTLS


@implementer(IPolicyForHTTPS, ISeesItself)
class RenewableTLS:
    """Shows what the files hold when a connection is made, and never what has expired.

    What was begun as somebody goes on as nobody else: the files may be renewed, but
    another user's do not take their place.
    """

    def __init__(self, files: CredentialFiles | None, ca_directory: Path) -> None:
        """Read everything once.

        :param files: ``None``: show nothing, as anybody.
        :raises CredentialProblem: missing, expired, or open to others.
        :raises TrustUnreadable: the CA directory is of no use.
        """
        self._files, self._ca_directory = files, ca_directory
        self._shown: ClientCredential | None = None
        self._read()

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """Make a connection to one server.

        :raises CredentialProblem: the credential has expired, and there is no new one.
        """
        now = datetime.now(timezone.utc)
        if self._stamp() != self._seen or self._ends <= now:
            try:
                self._read(self._shown)
            except RepomanError:
                # It is being written, or cannot be used: the old one does as long as it lasts,
                # and the file is looked at again at the next connection.
                if self._ends <= now:
                    raise
        return self._tls.creatorForNetloc(hostname, port)

    def look(self, alert: str) -> Sight | None:
        """Look at the credential that is shown for the reason of a server's alert."""
        if self._shown is None:
            return None
        return examination.look(self._shown, self._ca_directory, datetime.now(timezone.utc), alert)

    def _read(self, before: ClientCredential | None = None) -> None:
        seen, shown = self._stamp(), None
        if self._files is not None:
            now = datetime.now(timezone.utc)
            shown = ClientCredential.read(
                self._files.certificate, self._files.key, now, self._files.owners
            )
            if before is not None:
                _check_successor(shown, before)
        self._tls = ClientTLS(shown, self._ca_directory)
        self._seen, self._shown = seen, shown
        self._ends = shown.not_after if shown else datetime.max.replace(tzinfo=timezone.utc)

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


def _check_successor(shown: ClientCredential, before: ClientCredential) -> None:
    """Check that a new credential may take the place of the one before.

    :raises CredentialProblem: it is somebody else's, or its file is not written to its end.
    """
    whose, was = shown.end_entity, before.end_entity
    if (whose.subject, whose.issuer) != (was.subject, was.issuer):
        raise CredentialProblem(
            f"{shown.path} is now the credential of {shown_name(lambda: whose)}, and this was begun"
            f" as {shown_name(lambda: was)}, whose credential has expired; start it again as the"
            " one or the other."
        )
    if shown.credential.is_cut_off:
        raise CredentialProblem(f"{shown.path} is cut off in the middle; write it anew.")
