"""From a verified identity to the caller; administrators at the start."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from repoman.errors import AlreadyExists, Misconfigured
from repoman.model import Caller, Identity
from repoman.records import IAccountRecords


@frozen
class AdminLine:
    """A line of the admins file."""

    user_name: str
    email: str | None
    dn: str


class Accounts:
    """Users as callers.

    :param limited_proxies: ``allow``, ``read-only`` or ``deny``.
    """

    def __init__(self, records: IAccountRecords, limited_proxies: str) -> None:
        self._records = records
        self._limited_proxies = limited_proxies

    async def caller(self, identity: Identity | None, refusal: str) -> Caller:
        """Who asks.

        :param refusal: why there is no identity.
        """
        if identity is None:
            return Caller(None, reason=refusal)
        if identity.limited and self._limited_proxies == "deny":
            return Caller(
                None,
                identity,
                f"You come as {identity.subject} with a limited proxy, and this repository takes "
                "none; make a full one with grid-proxy-init.",
            )
        user = await self._records.by_identity(identity)
        if user is None:
            return Caller(
                None,
                identity,
                f"Nobody is registered here as {identity.subject} (issued by {identity.issuer}); "
                "ask the administrator for an account with exactly this DN; "
                "it can be copied as it stands.",
            )
        if user.suspended:
            return Caller(None, identity, f"User {user.user_name} is suspended.")
        reads_only = identity.limited and self._limited_proxies == "read-only"
        return Caller(user, identity, reads_only=reads_only)

    async def ensure_admins(self, lines: Iterable[AdminLine]) -> list[str]:
        """Create the administrators that do not exist yet; answer their names.

        :raises Misconfigured: with every line that cannot be done.
        """
        created: list[str] = []
        mistakes: list[str] = []
        for line in lines:
            try:
                if await self._records.ensure_admin(line.user_name, line.email, line.dn):
                    created.append(line.user_name)
            except AlreadyExists as error:
                mistakes.append(f"[accounts] admins: {line.user_name}: {error.message}")
        if mistakes:
            raise Misconfigured(mistakes)
        return created
