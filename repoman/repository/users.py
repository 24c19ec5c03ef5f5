"""Users as records: create, describe, list, change, remove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from repoman.errors import Invalid, Missing
from repoman.model import Caller, Profile, User, check_dns, check_name
from repoman.policy import authorize, may, protected
from repoman.texts import check_texts
from repoman.user_records import IUserRecords, NewUser

OWN_FIELDS = frozenset({"full_name", "email"})
"""What users may change of themselves with ``user_modify_self``."""


def missing_user(name: str) -> Missing:
    """The answer for a user that does not exist."""
    return Missing(f"There is no user {name}.")


MOST_KNOWN = 1000
"""The most names of users, and of groups, that are offered."""


@frozen
class Known:
    """Names that somebody may fill in; the first ones in order, if there are very many."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Users:
    """The records of users, under the policy."""

    def __init__(self, records: IUserRecords) -> None:
        self._records = records

    async def names(
        self, caller: Caller, after: str, limit: int, *, group: str | None = None
    ) -> list[str]:
        """Users' names, or those of a group's members: so many that come after one."""
        authorize("repository.read", caller)
        return await self._records.names(after, limit, group=group)

    async def known(self, caller: Caller) -> Known:
        """Users, and the groups that the caller may share with."""
        user = authorize("repository.read", caller)
        users, groups = await self._records.known(MOST_KNOWN)
        return Known(tuple(users), tuple(groups) if user.is_admin else user.groups)

    async def accounts(
        self, caller: Caller, *, text: str = "", after: str = "", limit: int | None = None
    ) -> list[User]:
        """Users by name, without their images.

        :param text: in the name or the full name.
        :param after: only names that come after this one.
        """
        authorize("repository.read", caller)
        return await self._records.accounts(text, after, limit)

    async def profiles(
        self, caller: Caller, after: str, limit: int, *, group: str | None = None
    ) -> list[Profile]:
        """The same with those of their images that the caller may see."""
        viewer = authorize("repository.read", caller)
        return await self._records.profiles(viewer, group=group, after=after, limit=limit)

    async def largest(self, caller: Caller, limit: int) -> list[tuple[str, int]]:
        """The users whose files take most, with how many bytes."""
        authorize("activity.read", caller)
        return await self._records.largest(limit)

    async def profile(self, caller: Caller, name: str) -> Profile:
        """A user with those of their images that the caller may see.

        :raises Missing: there is no such user.
        """
        viewer = authorize("repository.read", caller)
        for profile in await self._records.profiles(viewer, user_name=name):
            return profile
        raise missing_user(name)

    async def find(self, caller: Caller, name: str) -> User:
        """A user by name.

        :raises Missing: there is no such user.
        """
        authorize("repository.read", caller)
        user = await self._records.find(name)
        if user is None:
            raise missing_user(name)
        return user

    async def create(self, caller: Caller, new: NewUser) -> Profile:
        """Make a user."""
        authorize("user.create", caller)
        check_name("user", new.user_name, named="user_name")
        for group in new.groups:
            check_name("group", group, named="groups")
        await self._records.create(new)
        return await self.profile(caller, new.user_name)

    async def authorize_change(
        self, caller: Caller, name: str, fields: frozenset[str] = frozenset()
    ) -> User:
        """The user whose ``fields`` the caller may set.

        :raises Missing: there is no such user.
        """
        user = await self.find(caller, name)
        authorize("user.modify_self", caller, user)
        if fields - OWN_FIELDS:
            authorize("user.modify", caller)
        return user

    async def change(self, caller: Caller, name: str, changes: Mapping[str, Any]) -> Profile:
        """Set fields: those of NewUser but for ``groups``, and ``cert_dn``, the first DN."""
        user = await self.authorize_change(caller, name, frozenset(changes))
        changes = dict(changes)
        check_texts(changes, user)
        if "user_name" in changes:
            check_name("user", changes["user_name"], named="user_name")
        if changes.get("email", user.email) != user.email:
            # Others' addresses are private: that one is taken is told to those who see them.
            changes["own_email"] = not may("user.modify", caller)
        if "cert_dn" in changes:
            first = changes.pop("cert_dn")
            others = changes.get("client_dns", user.client_dns[1:])
            changes["client_dns"] = tuple(dict.fromkeys((first, *others)))
        if "client_dns" in changes and not changes["client_dns"]:
            raise Invalid("A user needs a DN at least.", field="client_dns")
        if len(changes.get("client_dns", ())) > len(user.client_dns):
            check_dns(changes["client_dns"])
        await self._records.change(user, changes)
        return await self.profile(caller, changes.get("user_name", user.user_name))

    async def delete(self, caller: Caller, name: str) -> None:
        """Remove a user with all images."""
        authorize("user.delete", caller)
        user = await self.find(caller, name)
        if caller.user is not None and user.id == caller.user.id:
            raise protected("user.delete_self")
        await self._records.delete(user)

    async def authorize_shares(self, caller: Caller, name: str) -> User:
        """The user whose shares the caller may see.

        :raises Missing: there is no such user.
        """
        user = await self.find(caller, name)
        authorize("user.see_shares", caller, user)
        return user
