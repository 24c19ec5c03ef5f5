"""Users: their accounts, the DNs that log in as them, and their end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import asdict, evolve
from psycopg2.errors import LockNotAvailable, SerializationFailure

from repoman.audit import Change
from repoman.database.constraints import translated
from repoman.database.listings import visible_to
from repoman.database.locks import ALL_WORDS, IMAGES
from repoman.database.pool import Pool, Transaction
from repoman.database.words import IMAGES_OF, taken_by_images
from repoman.errors import AlreadyExists, Invalid, Missing
from repoman.model import ADMINS, USERS, Binding, Membership, Profile, User
from repoman.policy import protected
from repoman.user_records import NewUser

COLUMNS = """
    a.account_id, a.user_name, a.full_name, a.email, a.suspended, a.quota, a.used,
    (SELECT json_agg(json_build_array(subject, issuer, anchor) ORDER BY position)
       FROM login l WHERE l.account_id = a.account_id),
    (SELECT json_agg(json_build_array(g.name, ARRAY(
                SELECT permission FROM group_permission p WHERE p.group_id = g.group_id),
                g.group_id) ORDER BY g.name)
       FROM membership m JOIN user_group g USING (group_id)
      WHERE m.account_id = a.account_id)
"""
"""What a user is made of, for a query of ``account a``."""

SETTABLE = ("full_name", "email", "own_email", "suspended", "quota")
"""The columns that a change may set as they are."""

_IN_GROUP = """
(%(group)s::text IS NULL OR a.account_id IN (
    SELECT account_id FROM membership JOIN user_group g USING (group_id) WHERE g.name = %(group)s))
"""

_ACTIVE_ADMINS = """
SELECT count(*) FROM membership JOIN user_group g USING (group_id) JOIN account USING (account_id)
 WHERE g.name = %s AND NOT suspended
"""


def user_from_row(row: Sequence[Any]) -> User:
    """The user that a row of COLUMNS stands for."""
    return User(
        id=row[0],
        user_name=row[1],
        full_name=row[2],
        email=row[3],
        suspended=row[4],
        quota=row[5],
        used=row[6],
        client_dns=tuple(subject for subject, *_ in row[7] or ()),
        bindings=tuple(Binding(issuer, anchor) for _, issuer, anchor in row[7] or ()),
        memberships=tuple(Membership(g, frozenset(p), key) for g, p, key in row[8] or ()),
    )


@asynccontextmanager
async def an_admin_stays(transaction: Transaction) -> AsyncIterator[None]:
    """Run a block that may take rights away.

    :raises Protected: it would take the last administrator's who can log in.
    """
    # Whoever else takes rights away waits here, and then counts what we left.
    await transaction.run("SELECT FROM user_group WHERE name = %s FOR NO KEY UPDATE", (ADMINS,))
    before = await transaction.run_one(_ACTIVE_ADMINS, (ADMINS,))
    yield
    after = await transaction.run_one(_ACTIVE_ADMINS, (ADMINS,))
    if before and before[0] and after and not after[0]:
        raise protected("admins.last")


async def insert(transaction: Transaction, new: NewUser) -> None:
    """Make a user, a member of ``users`` and of the groups wanted."""
    await transaction.run("INSERT INTO word VALUES (%s, 'user')", (new.user_name,))
    row = await transaction.run_one(
        "INSERT INTO account (user_name, full_name, email, suspended, quota)"
        " VALUES (%s, %s, %s, %s, %s) RETURNING account_id",
        (new.user_name, new.full_name, new.email, new.suspended, new.quota),
    )
    account_id = int(row[0]) if row else 0
    first = Binding(new.issuer_dn, new.anchor_dn)
    await _set_logins(transaction, account_id, new.client_dns, {new.client_dns[0]: first})
    joined = await transaction.run(
        "INSERT INTO membership SELECT group_id, %s FROM user_group WHERE name = ANY(%s)"
        " RETURNING (SELECT name FROM user_group g WHERE g.group_id = membership.group_id)",
        (account_id, [USERS, *new.groups]),
    )
    unknown = set(new.groups) - {name for (name,) in joined}
    if unknown:
        raise Invalid(f"There is no group {min(unknown)}.", field="groups")
    transaction.record(Change("user.create", new.user_name, asdict(new, recurse=False)))


async def _set_logins(
    transaction: Transaction, account_id: int, dns: Sequence[str], known: Mapping[str, Binding]
) -> None:
    bindings = [known.get(dn, Binding()) for dn in dns]
    await transaction.run("DELETE FROM login WHERE account_id = %s", (account_id,))
    await transaction.run(
        """
        INSERT INTO login (account_id, position, subject, issuer, anchor)
        SELECT %s, place, subject, issuer, anchor
          FROM unnest(%s::text[], %s::text[], %s::text[])
               WITH ORDINALITY AS listed(subject, issuer, anchor, place)
        """,
        (account_id, list(dns), [b.issuer for b in bindings], [b.anchor for b in bindings]),
    )


async def _change_logins(transaction: Transaction, user: User, changes: Mapping[str, Any]) -> None:
    dns = changes.get("client_dns", user.client_dns)
    rows = await transaction.run(
        "SELECT subject, issuer, anchor FROM login WHERE account_id = %s", (user.id,)
    )
    known = {subject: Binding(issuer, anchor) for subject, issuer, anchor in rows}
    if "issuer_dn" in changes:
        # Another issuer hangs elsewhere.
        known[dns[0]] = Binding(changes["issuer_dn"])
    if "anchor_dn" in changes:
        known[dns[0]] = evolve(known.get(dns[0], Binding()), anchor=changes["anchor_dn"])
    await _set_logins(transaction, user.id, dns, known)


async def _lock(transaction: Transaction, account_id: int) -> tuple[Any, ...] | None:
    """Keep a user from getting images and uploads; answer the name, if there is such a user."""
    await transaction.run(IMAGES, (account_id,))
    row = await transaction.run_one(
        "SELECT user_name FROM account WHERE account_id = %s FOR UPDATE", (account_id,)
    )
    await _lock_newest(transaction, account_id)
    return row


async def _lock_newest(transaction: Transaction, account_id: int) -> None:
    """Lock the images that a user, whose others are locked, got before the account was.

    :raises SerializationFailure: another transaction has one; to be done again from the start.
    """
    try:
        await transaction.run(IMAGES + " NOWAIT", (account_id,))
    except LockNotAvailable as error:
        raise SerializationFailure("an image came meanwhile") from error


async def _remove_images(transaction: Transaction, account_id: int) -> list[str]:
    await transaction.run(
        """
        WITH dropped AS (
            DELETE FROM image_file WHERE image_id IN (
                SELECT image_id FROM image WHERE owner_id = %(owner)s)
            RETURNING blob)
        UPDATE blob SET state = 'deleting', reserved = 0
         WHERE blob IN (SELECT blob FROM dropped)
            OR (state = 'receiving' AND image_id IN (
                    SELECT image_id FROM image WHERE owner_id = %(owner)s))
        """,
        {"owner": account_id},
    )
    rows = await transaction.run(
        "DELETE FROM image WHERE owner_id = %s RETURNING name", (account_id,)
    )
    return sorted(name for (name,) in rows)


class UserRecords:
    """The :class:`~repoman.user_records.IUserRecords` of PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, user_name: str) -> User | None:
        """A user by name."""
        rows = await self._pool.query(
            f"SELECT {COLUMNS} FROM account a WHERE a.user_name = %s",  # noqa: S608 a constant
            (user_name,),
        )
        return user_from_row(rows[0]) if rows else None

    async def names(self, after: str, limit: int, *, group: str | None = None) -> list[str]:
        """Users' names in order, so many of those that come after one.

        :param group: only members of this group.
        """
        rows = await self._pool.query(
            f"SELECT user_name FROM account a WHERE user_name > %(after)s AND {_IN_GROUP}"  # noqa: S608 a constant
            " ORDER BY user_name LIMIT %(limit)s",
            {"after": after, "limit": limit, "group": group},
        )
        return [name for (name,) in rows]

    async def known(self, limit: int) -> tuple[list[str], list[str]]:
        """The names of users and of groups, in order, up to ``limit`` of each; one query."""
        rows = await self._pool.query(
            "SELECT ARRAY(SELECT user_name FROM account ORDER BY user_name LIMIT %(limit)s),"
            " ARRAY(SELECT name FROM user_group ORDER BY name LIMIT %(limit)s)",
            {"limit": limit},
        )
        return rows[0][0], rows[0][1]

    async def accounts(self, text: str, after: str, limit: int | None) -> list[User]:
        """Users by name that have ``text`` in a name; one query."""
        rows = await self._pool.query(
            f"""
            SELECT {COLUMNS} FROM account a
             WHERE (strpos(lower(a.user_name), lower(%(text)s)) > 0
                    OR strpos(lower(a.full_name), lower(%(text)s)) > 0)
               AND a.user_name > %(after)s
             ORDER BY a.user_name LIMIT %(limit)s
            """,  # noqa: S608 a constant
            {"text": text, "after": after, "limit": limit},
        )
        return [user_from_row(row) for row in rows]

    async def largest(self, limit: int) -> list[tuple[str, int]]:
        """Those whose files take most, with how many bytes; one query."""
        rows = await self._pool.query(
            "SELECT user_name, used FROM account WHERE used > 0"
            " ORDER BY used DESC, user_name LIMIT %s",
            (limit,),
        )
        return [(name, used) for name, used in rows]

    async def profiles(
        self,
        viewer: User,
        *,
        user_name: str | None = None,
        group: str | None = None,
        after: str = "",
        limit: int | None = None,
    ) -> list[Profile]:
        """Users by name, with those of their images that ``viewer`` may see; one query.

        :param user_name: only this one.
        :param group: only members of this group.
        :param after: only those whose names come after this one.
        """
        condition, params = visible_to(viewer, private="user_modify" in viewer.permissions)
        rows = await self._pool.query(
            f"""
            SELECT {COLUMNS},
                   ARRAY(SELECT i.name FROM image i
                          WHERE i.owner_id = a.account_id AND {condition} ORDER BY i.name)
              FROM account a
             WHERE (%(user_name)s::text IS NULL OR a.user_name = %(user_name)s)
               AND a.user_name > %(after)s AND {_IN_GROUP}
             ORDER BY a.user_name LIMIT %(limit)s
            """,  # noqa: S608 constants and one of two conditions
            {
                **params,
                "user_name": user_name,
                "group": group,
                "after": after,
                "limit": limit,
            },
        )
        return [Profile(user_from_row(row), tuple(row[9])) for row in rows]

    async def create(self, new: NewUser) -> None:
        """Make a user.

        :raises AlreadyExists: the name, a DN or the e-mail address is taken.
        :raises Invalid: there is no such group.
        """
        async with self._named(new.user_name):
            await self._pool.interact(lambda transaction: insert(transaction, new))

    @asynccontextmanager
    async def _named(self, name: str) -> AsyncIterator[None]:
        """Run a block that gives a user a name; say what takes it, if something does."""
        try:
            with translated(name=name):
                yield
        except AlreadyExists as error:
            if error.field == "user_name" and (rows := await self._pool.query(IMAGES_OF, (name,))):
                raise taken_by_images(name, *rows[0]) from None
            raise

    async def change(self, user: User, changes: Mapping[str, Any]) -> None:
        """Set fields: those of NewUser but for ``groups``.

        :raises AlreadyExists: the name, a DN or the e-mail address is taken; not an ``own_email``.
        :raises Missing: the user is gone meanwhile.
        :raises Protected: it would suspend the last administrator.
        """
        async with self._named(changes.get("user_name", user.user_name)):
            if changes.get("suspended"):
                await self._pool.interact(lambda t: _change_guarded(t, user, changes))
            else:
                await self._pool.interact(lambda t: _change(t, user, changes))

    async def delete(self, user: User) -> None:
        """Remove a user with all images; their blobs are marked for the sweeper.

        :raises Protected: it is the last administrator.
        """

        async def work(transaction: Transaction) -> None:
            async with an_admin_stays(transaction):
                row = await _lock(transaction, user.id)
                if row is None:
                    return
                await transaction.run(ALL_WORDS, {"owner": user.id})
                names = await _remove_images(transaction, user.id)
                await transaction.run("DELETE FROM account WHERE account_id = %s", (user.id,))
                await transaction.run("DELETE FROM word WHERE word = %s AND kind = 'user'", row)
                transaction.record(Change("user.delete", row[0], {"images": names}))

        await self._pool.interact(work)


async def _change_guarded(transaction: Transaction, user: User, changes: Mapping[str, Any]) -> None:
    async with an_admin_stays(transaction):
        await _change(transaction, user, changes)


async def _change(transaction: Transaction, user: User, changes: Mapping[str, Any]) -> None:
    if changes.get("user_name", user.user_name) != user.user_name:
        # All images get other addresses.
        await _lock(transaction, user.id)
    columns = {name: value for name, value in changes.items() if name in SETTABLE}
    assignments = "".join(f", {name} = %({name})s" for name in columns)
    row = await transaction.run_one(
        f"UPDATE account SET kind = kind{assignments}"  # noqa: S608 names from SETTABLE
        " WHERE account_id = %(account_id)s RETURNING user_name",
        {**columns, "account_id": user.id},
    )
    if row is None:
        raise Missing(f"User {user.user_name} was deleted meanwhile.")
    if changes.get("user_name", row[0]) != row[0]:
        # The account's name follows by the foreign key.
        await transaction.run(
            "UPDATE word SET word = %s WHERE word = %s", (changes["user_name"], row[0])
        )
    if changes.keys() & {"client_dns", "issuer_dn", "anchor_dn"}:
        await _change_logins(transaction, user, changes)
    transaction.record(Change("user.modify", row[0], changes))
