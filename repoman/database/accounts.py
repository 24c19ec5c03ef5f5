"""Who logs in as whom."""

from __future__ import annotations

from attrs import evolve

from repoman.audit import ORIGIN, Change
from repoman.database.constraints import translated
from repoman.database.pool import Pool, Transaction
from repoman.database.users import COLUMNS, insert, user_from_row
from repoman.model import ADMINS, Identity, User
from repoman.records import AdminFate, Login, NewUser

NOTE_LINE = "INSERT INTO admin_line VALUES (%s) ON CONFLICT DO NOTHING RETURNING subject"

RIVALS = """
SELECT EXISTS (SELECT FROM login l WHERE l.account_id = a.account_id AND subject = %(dn)s),
       EXISTS (SELECT FROM membership m JOIN user_group g USING (group_id)
                WHERE m.account_id = a.account_id AND g.name = %(admins)s)
  FROM account a
 WHERE user_name = %(name)s
    OR account_id = (SELECT account_id FROM login WHERE subject = %(dn)s)
"""


class AccountRecords:
    """The :class:`~repoman.records.IAccountRecords` of PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def by_identity(self, identity: Identity) -> User | None:
        """The user with this DN from this issuer; binds the issuer at the first login."""
        rows = await self._pool.ask(
            f"SELECT {COLUMNS}, login.issuer FROM account a JOIN login USING (account_id)"  # noqa: S608 a constant
            " WHERE login.subject = %s",
            (identity.subject,),
            lambda row: (user_from_row(row), row[-1]),
        )
        if not rows:
            return None
        user, issuer = rows[0]
        if issuer is None:
            issuer = await self._bind(identity)
        return user if issuer == identity.issuer else None

    async def _bind(self, identity: Identity) -> str | None:
        # Two first logins at once: the database decides whose issuer it is.
        async def work(transaction: Transaction) -> str | None:
            bound = await transaction.run_one(
                "UPDATE login SET issuer = %s FROM account a WHERE subject = %s"
                " AND issuer IS NULL AND a.account_id = login.account_id RETURNING user_name",
                (identity.issuer, identity.subject),
            )
            if bound is not None:
                # It is this user who comes: until now nobody could know.
                ORIGIN.set(evolve(ORIGIN.get(), user=bound[0]))
                detail = {"dn": identity.subject, "issuer_dn": identity.issuer}
                transaction.record(Change("user.bind", bound[0], detail))
                return identity.issuer
            row = await transaction.run_one(
                "SELECT issuer FROM login WHERE subject = %s", (identity.subject,)
            )
            return row[0] if row else None

        return await self._pool.interact(work)

    async def ensure_admin(self, user_name: str, email: str | None, dn: str) -> AdminFate:
        """Create an administrator, once for each DN and for ever.

        :raises AlreadyExists: the name or the address is another's; asked again, it is tried again.
        """

        async def work(transaction: Transaction) -> AdminFate:
            # Another daemon that starts at the same time waits here for us.
            if not await transaction.run(NOTE_LINE, (dn,)):
                return "known before"
            rivals = await transaction.run(RIVALS, {"dn": dn, "name": user_name, "admins": ADMINS})
            if (True, True) in rivals:
                return "known before"
            if any(has_dn or is_admin for has_dn, is_admin in rivals):
                return "left alone"
            await insert(transaction, NewUser(user_name, (dn,), email=email, groups=(ADMINS,)))
            return "created"

        with translated(name=user_name):
            return await self._pool.interact(work)

    async def admit(self, login: Login) -> bool:
        """Let a DN log in as a user, who is made if need be; answer whether it is news.

        :raises AlreadyExists: the DN is another user's, or the name is not free.
        """

        async def work(transaction: Transaction) -> bool:
            if await transaction.run_one(
                "SELECT 1 FROM login JOIN account USING (account_id)"
                " WHERE subject = %s AND user_name = %s",
                (login.dn, login.user_name),
            ):
                return False
            account = await transaction.run_one(
                "SELECT account_id FROM account WHERE user_name = %s FOR NO KEY UPDATE",
                (login.user_name,),
            )
            if account is None:
                await insert(transaction, NewUser(login.user_name, (login.dn,)))
            else:
                await transaction.run(
                    "INSERT INTO login (account_id, subject, position) SELECT %s, %s,"
                    " coalesce(max(position), 0) + 1 FROM login WHERE account_id = %s",
                    (account[0], login.dn, account[0]),
                )
                change = Change("user.modify", login.user_name, {"client_dns": {"added": login.dn}})
                transaction.record(change)
            return True

        with translated(name=login.user_name):
            return await self._pool.interact(work)
