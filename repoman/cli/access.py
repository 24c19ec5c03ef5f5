"""Which server a command talks to, and as whom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from repoman.cli.command import Command, Options, Session
from repoman.cli.exits import Usage
from repoman.cli.output import Output
from repoman.client.credentials import (
    CredentialFiles,
    Named,
    find_ca_directory,
    find_credential,
    no_credential,
)
from repoman.client.settings import Settings, read_port, user_file


@frozen
class Access:
    """A server, and what to show it.

    :ivar credential: ``None``: nothing, as anybody.
    """

    host: str
    port: int
    credential: CredentialFiles | None
    ca_directory: Path

    def __str__(self) -> str:
        whom = f"credential {self.credential}" if self.credential else "no credential"
        return f"Server {self.place}, {whom}."

    @property
    def place(self) -> str:
        """The server as URLs have it: an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def work(
        self, reactor: Any, command: Command, options: Options, settings: Settings, out: Output
    ) -> int:
        """Connect, let the command do its work, and answer the exit code.

        :raises CredentialProblem: the credential is not fit to be shown.
        """
        # Imported here: Twisted costs more than all the rest of a command that does not need it.
        from repoman.client.repository import RepositoryClient

        url = f"https://{self.place}"
        client = RepositoryClient.with_files(reactor, url, self.credential, self.ca_directory)
        try:
            assert command.work is not None  # noqa: S101 -- a command is local or has work
            await command.work(Session(client, options, out, settings, reactor))
            return 0
        finally:
            await client.close()


def find_access(
    command: Command, options: Options, settings: Settings, environ: Mapping[str, str], uid: int
) -> Access:
    """What the command line, the environment and the configuration add up to.

    :raises Usage: no server is named, or not in a way that we understand.
    :raises CredentialProblem: there is no credential, or not where it should be.
    :raises TrustUnreadable: there is no CA directory.
    """
    named = named_by(options, settings)
    credential = find_credential(named, environ, uid)
    if credential is None and not command.is_for_anybody(options):
        raise no_credential()
    host, port = find_server(options, settings, environ)
    return Access(host, port, credential, find_ca_directory(named, environ))


def named_by(options: Options, settings: Settings) -> Named:
    """What the command line and the configuration say about credentials."""
    return Named(
        proxy=options.proxy or "",
        certificate=options.cert or "",
        key=options.key or "",
        configured_proxy=settings.proxy_cert,
        ca_directory=options.ca_dir or "",
    )


def find_server(
    options: Options, settings: Settings, environ: Mapping[str, str]
) -> tuple[str, int]:
    """Host and port.

    :raises Usage: no server is named, or not in a way that we understand.
    """
    host, port = stated_server(options, settings)
    if not host:
        raise Usage(
            "No repository is named: say -H HOST, or put it into your configuration with "
            f"repoman -H HOST make-config ({user_file(environ)})."
        )
    return host, port


def stated_server(options: Options, settings: Settings) -> tuple[str, int]:
    """Host and port as far as they are stated: the host may be empty.

    :raises Usage: they are not stated in a way that we understand.
    """
    host, port = read_host(options.host or settings.repository)
    try:
        return host, read_port(options.port) if options.port else port or settings.port
    except ValueError as error:
        raise Usage(f"--port: {error}") from None


_STRANGE = re.compile(r"[\s@%*!\"'(),;<>\\^`{|}~]")
"""What is in no host's name; a host may be called in any alphabet."""


def read_host(text: str) -> tuple[str, int | None]:
    """Host and port of ``HOST``, ``HOST:PORT`` or ``https://HOST:PORT/``.

    :raises Usage: it is something else.
    """
    # An IPv6 address may stand by itself.
    place = f"[{text}]" if text.count(":") > 1 and not set("[/") & set(text) else text
    try:
        parts = urlsplit(place if "//" in text else f"//{place}")
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # could be the name of a host (RFC 3490)
    except ValueError as error:
        raise _no_server(text) from error
    strange = (
        parts.scheme not in ("", "https") or parts.path.strip("/") or _STRANGE.search(parts.netloc)
    )
    if text and (strange or not host):
        raise _no_server(text)
    return host, port


def _no_server(text: str) -> Usage:
    return Usage(f"{text!r} is no server: say HOST, HOST:PORT or https://HOST:PORT.")
