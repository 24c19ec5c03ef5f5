"""The servers that a DSN names, one address at a time, found without holding the reactor up."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from itertools import cycle
from typing import Any

from repoman.database.child import ChildFailed, run
from repoman.errors import DatabaseUnavailable


def servers(parameters: Mapping[str, str]) -> list[Mapping[str, str]]:
    """Libpq's ``parameters`` for each of the servers that they list, in order.

    libpq would try them itself, but with a socket for each: who watches the first one for it is not
    told.
    """
    given = {name: parameters.get(name, "").split(",") for name in ("host", "hostaddr", "port")}
    count = max(map(len, given.values()))
    if count == 1:
        return [parameters]
    listed = {name: cycle(values) for name, values in given.items() if values != [""]}
    rest = {name: value for name, value in parameters.items() if name not in given}
    return [{**rest, **{name: next(each) for name, each in listed.items()}} for _ in range(count)]


async def with_addresses(reactor: Any, parameters: Mapping[str, str]) -> list[Mapping[str, str]]:
    """Libpq's ``parameters`` of one server with each address of its host.

    libpq would ask for them itself, but blocks the process until the name
    service answers.  A child that asks in the system's own way does not.

    :raises DatabaseUnavailable: no such host.
    """
    host = parameters.get("host", "")
    if parameters.get("hostaddr") or not _is_name(host):
        return [parameters]
    try:
        answer = await run(reactor, ["getent", "ahosts", host])
    except ChildFailed:
        raise DatabaseUnavailable(f"there is no address for the host {host}") from None
    # An address a line, once for each kind of socket.
    addresses = dict.fromkeys(line.split()[0] for line in answer.splitlines())
    return [{**parameters, "hostaddr": address} for address in addresses]


def _is_name(host: str) -> bool:
    """A name: not a socket's directory, nor an address."""
    if not host or host[0] in "/@":
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False
