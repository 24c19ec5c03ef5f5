"""The addresses of a database server, found without holding the reactor up."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from repoman.database.child import ChildFailed, run
from repoman.errors import DatabaseUnavailable


async def with_addresses(reactor: Any, parameters: Mapping[str, str]) -> Mapping[str, str]:
    """Libpq's ``parameters`` with the addresses of their host.

    libpq would ask for them itself, but blocks the process until the name
    service answers.  A child that asks in the system's own way does not.

    :raises DatabaseUnavailable: no such host.
    """
    host = parameters.get("host", "")
    if "hostaddr" in parameters or not _is_name(host):
        return parameters
    try:
        answer = await run(reactor, ["getent", "ahosts", host])
    except ChildFailed:
        raise DatabaseUnavailable(f"there is no address for the host {host}") from None
    # An address a line, once for each kind of socket.
    addresses = list(dict.fromkeys(line.split()[0] for line in answer.splitlines()))
    return {
        **parameters,
        "host": ",".join([host] * len(addresses)),
        "hostaddr": ",".join(addresses),
    }


def _is_name(host: str) -> bool:
    """One name: not a socket's directory, an address, or a list (which libpq may have)."""
    if not host or host[0] in "/@" or "," in host:
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False
