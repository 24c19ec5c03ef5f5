"""From a verified identity to the caller; administrators at the start."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from repoman.errors import AlreadyExists
from repoman.model import Caller, Identity
from repoman.user_records import IAccountRecords


@frozen
class AdminLine:
    """A line of the admins file."""

    user_name: str
    email: str | None
    dn: str


@frozen
class Founded:
    """What came of the administrators' file.

    :ivar created: names of the administrators that were made.
    :ivar refused: a line for each that could not be, with the reason.
    """

    created: tuple[str, ...]
    refused: tuple[str, ...]


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
            return Caller(None, identity, await self._why_unknown(identity))
        if user.suspended:
            return Caller(None, identity, f"User {user.user_name} is suspended.")
        reads_only = identity.limited and self._limited_proxies == "read-only"
        return Caller(user, identity, reads_only=reads_only)

    async def _why_unknown(self, identity: Identity) -> str:
        subject, issuer = identity.subject, _issuer(identity)
        if await self._records.is_registered(subject):
            return (
                f"The account of {subject} is bound to another certificate authority than yours, "
                f"{issuer}; ask the administrator to bind it anew, or come with a certificate of "
                "the other one."
            )
        return (
            f"Nobody is registered here as {subject} (issued by {issuer}); ask the administrator "
            "for an account with exactly this DN; it can be copied as it stands."
        )

    async def ensure_admins(self, lines: Iterable[AdminLine]) -> Founded:
        """Create the administrators of lines that nobody has looked at yet."""
        created: list[str] = []
        refused: list[str] = []
        for line in lines:
            try:
                fate = await self._records.ensure_admin(line.user_name, line.email, line.dn)
            except AlreadyExists as error:
                refused.append(f"{line.user_name} was not created: {error.message}")
                continue
            if fate == "created":
                created.append(line.user_name)
            elif fate == "left alone":
                refused.append(
                    f"{line.user_name} was not created: that name, or {line.dn}, is a user's "
                    "already, who was left as they are; an administrator can change them."
                )
        return Founded(tuple(created), tuple(refused))


def _issuer(identity: Identity) -> str:
    """Who issued the end entity; with the CA that counts, where the name alone does not."""
    if identity.issuer_is_known or identity.anchor is None:
        return identity.issuer
    return f"{identity.issuer}, a CA below {identity.anchor}"
