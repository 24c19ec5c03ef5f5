"""Groups: create, describe, list, change, remove; members and permissions."""

from __future__ import annotations

from repoman.errors import Invalid, Missing
from repoman.model import ADMINS, PERMISSIONS, Caller, Group, User, check_name
from repoman.policy import authorize, protected
from repoman.repository.users import missing_user
from repoman.user_records import IGroupRecords, IUserRecords, NewGroup


class Groups:
    """The records of groups, under the policy."""

    def __init__(self, records: IGroupRecords, users: IUserRecords) -> None:
        self._records = records
        self._users = users

    async def listing(
        self, caller: Caller, after: str = "", limit: int | None = None
    ) -> list[Group]:
        """Groups by name: so many that come after one."""
        authorize("repository.read", caller)
        return await self._records.listing(after, limit)

    async def names(self, caller: Caller, after: str, limit: int) -> list[str]:
        """The same by name only: cheaper."""
        authorize("repository.read", caller)
        return await self._records.names(after, limit)

    async def find(self, caller: Caller, name: str) -> Group:
        """A group by name.

        :raises Missing: there is no such group.
        """
        authorize("repository.read", caller)
        group = await self._records.find(name)
        if group is None:
            raise Missing(f"There is no group {name}.")
        return group

    async def create(self, caller: Caller, new: NewGroup) -> Group:
        """Make a group."""
        authorize("group.create", caller)
        if new.permissions:
            authorize("group.modify_permissions", caller)
        check_name("group", new.name, named="name")
        for user in new.users:
            check_name("user", user, named="users")
        for permission in new.permissions:
            if permission not in PERMISSIONS:
                raise Invalid(f"There is no permission {permission}.", field="permissions")
        return await self._records.create(new)

    async def rename(self, caller: Caller, name: str, new_name: str) -> Group:
        """Give a group another name.

        :raises Protected: it is ``admins`` or ``users``.
        """
        authorize("group.modify", caller)
        group = await self._unprotected(caller, name)
        check_name("group", new_name, named="name")
        return await self._records.rename(group, new_name)

    async def delete(self, caller: Caller, name: str) -> None:
        """Remove a group.

        :raises Protected: it is ``admins`` or ``users``.
        """
        authorize("group.delete", caller)
        await self._records.delete(await self._unprotected(caller, name))

    async def add_member(self, caller: Caller, name: str, user_name: str) -> None:
        """Let a user be a member."""
        await self._records.add_member(*await self._both(caller, name, user_name))

    async def remove_member(self, caller: Caller, name: str, user_name: str) -> None:
        """End a membership."""
        await self._records.remove_member(*await self._both(caller, name, user_name))

    async def permit(self, caller: Caller, name: str, permission: str) -> None:
        """Let a group permit something."""
        group = await self._group_and_permission(caller, name, permission)
        await self._records.permit(group, permission)

    async def forbid(self, caller: Caller, name: str, permission: str) -> None:
        """Take a permission from a group.

        :raises Protected: it is ``admins``.
        """
        group = await self._group_and_permission(caller, name, permission)
        if group.name == ADMINS:
            raise protected("admins.permissions")
        await self._records.forbid(group, permission)

    async def _unprotected(self, caller: Caller, name: str) -> Group:
        group = await self.find(caller, name)
        if group.protected:
            raise protected("group.protected")
        return group

    async def _both(self, caller: Caller, name: str, user_name: str) -> tuple[Group, User]:
        authorize("group.modify_membership", caller)
        group = await self.find(caller, name)
        user = await self._users.find(user_name)
        if user is None:
            raise missing_user(user_name)
        return group, user

    async def _group_and_permission(self, caller: Caller, name: str, permission: str) -> Group:
        authorize("group.modify_permissions", caller)
        group = await self.find(caller, name)
        if permission not in PERMISSIONS:
            raise Missing(f"There is no permission {permission}.")
        return group
