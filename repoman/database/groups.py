"""Groups: members, and what they permit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import asdict

from repoman.audit import Change
from repoman.database.constraints import translated
from repoman.database.pool import Pool, Transaction
from repoman.database.users import an_admin_stays
from repoman.errors import Invalid, Missing
from repoman.model import ADMINS, Group, User
from repoman.user_records import NewGroup

SELECT = """
SELECT g.group_id, g.name, g.protected,
       ARRAY(SELECT permission FROM group_permission p
              WHERE p.group_id = g.group_id ORDER BY permission),
       ARRAY(SELECT user_name FROM membership m JOIN account USING (account_id)
              WHERE m.group_id = g.group_id ORDER BY user_name)
  FROM user_group g
"""


def group_from_row(row: Sequence[Any]) -> Group:
    """The group that a row of SELECT stands for."""
    return Group(row[0], row[1], row[2], tuple(row[3]), tuple(row[4]))


async def _load(transaction: Transaction, group_id: int) -> Group:
    row = await transaction.run_one(SELECT + " WHERE g.group_id = %s", (group_id,))
    if row is None:
        raise Missing("The group was deleted meanwhile.")
    return group_from_row(row)


class GroupRecords:
    """The :class:`~repoman.user_records.IGroupRecords` of PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, name: str) -> Group | None:
        """A group by name."""
        rows = await self._pool.query(SELECT + " WHERE g.name = %s", (name,))
        return group_from_row(rows[0]) if rows else None

    async def listing(self, after: str = "", limit: int | None = None) -> list[Group]:
        """Groups by name, so many of those that come after one; one query."""
        rows = await self._pool.query(
            SELECT + " WHERE g.name > %s ORDER BY g.name LIMIT %s", (after, limit)
        )
        return [group_from_row(row) for row in rows]

    async def names(self, after: str, limit: int) -> list[str]:
        """The same by name only: cheaper."""
        rows = await self._pool.query(
            "SELECT name FROM user_group WHERE name > %s ORDER BY name LIMIT %s", (after, limit)
        )
        return [name for (name,) in rows]

    async def create(self, new: NewGroup) -> Group:
        """Make a group.

        :raises AlreadyExists: the name is taken.
        :raises Invalid: there is no such user.
        """

        async def work(transaction: Transaction) -> Group:
            row = await transaction.run_one(
                "INSERT INTO user_group (name) VALUES (%s) RETURNING group_id", (new.name,)
            )
            group_id = int(row[0]) if row else 0
            await transaction.run(
                "INSERT INTO group_permission SELECT DISTINCT %s::bigint, unnest(%s::text[])",
                (group_id, list(new.permissions)),
            )
            await transaction.run(
                "INSERT INTO membership SELECT %s, account_id FROM account"
                " WHERE user_name = ANY(%s)",
                (group_id, list(new.users)),
            )
            group = await _load(transaction, group_id)
            unknown = set(new.users) - set(group.users)
            if unknown:
                raise Invalid(f"There is no user {min(unknown)}.", field="users")
            transaction.record(Change("group.create", new.name, asdict(new, recurse=False)))
            return group

        with translated(name=new.name):
            return await self._pool.interact(work)

    async def rename(self, group: Group, name: str) -> Group:
        """Give a group another name.

        :raises AlreadyExists: it is taken.
        :raises Missing: the group is gone meanwhile.
        """

        async def work(transaction: Transaction) -> Group:
            await transaction.run(
                "UPDATE user_group SET name = %s WHERE group_id = %s", (name, group.id)
            )
            transaction.record(Change("group.modify", group.name, {"name": name}))
            return await _load(transaction, group.id)

        with translated(name=name):
            return await self._pool.interact(work)

    async def delete(self, group: Group) -> None:
        """Remove a group; what was shared with it no longer is."""
        change = Change("group.delete", group.name, {"users": group.users})
        await self._run(change, "DELETE FROM user_group WHERE group_id = %s", group.id)

    async def add_member(self, group: Group, user: User) -> None:
        """Let a user be a member.  Harmless twice."""
        change = Change("group.add_member", group.name, {"user": user.user_name})
        with translated(name=f"{group.name} or {user.user_name}"):
            await self._run(
                change,
                "INSERT INTO membership VALUES (%s, %s) ON CONFLICT DO NOTHING",
                group.id,
                user.id,
            )

    async def remove_member(self, group: Group, user: User) -> None:
        """End a membership.  Harmless twice.

        :raises Protected: nobody would be left to administrate.
        """
        change = Change("group.remove_member", group.name, {"user": user.user_name})
        statement = "DELETE FROM membership WHERE group_id = %s AND account_id = %s"

        async def work(transaction: Transaction) -> None:
            async with an_admin_stays(transaction):
                await _do(transaction, change, statement, group.id, user.id)

        if group.name == ADMINS:
            await self._pool.interact(work)
        else:
            await self._run(change, statement, group.id, user.id)

    async def permit(self, group: Group, permission: str) -> None:
        """Let a group permit something.  Harmless twice."""
        change = Change("group.permit", group.name, {"permission": permission})
        with translated(name=group.name):
            await self._run(
                change,
                "INSERT INTO group_permission VALUES (%s, %s) ON CONFLICT DO NOTHING",
                group.id,
                permission,
            )

    async def forbid(self, group: Group, permission: str) -> None:
        """Take a permission from a group.  Harmless twice."""
        change = Change("group.forbid", group.name, {"permission": permission})
        await self._run(
            change,
            "DELETE FROM group_permission WHERE group_id = %s AND permission = %s",
            group.id,
            permission,
        )

    async def _run(self, change: Change, sql: str, *params: Any) -> None:
        await self._pool.interact(lambda transaction: _do(transaction, change, sql, *params))


async def _do(transaction: Transaction, change: Change, sql: str, *params: Any) -> None:
    """Run a statement; there was a change if it touched a row."""
    if await transaction.execute(sql, params):
        transaction.record(change)
