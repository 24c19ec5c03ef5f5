"""Who logs in as whom."""

from __future__ import annotations

from attrs import evolve

from repoman.audit import ORIGIN, Change
from repoman.database.constraints import translated
from repoman.database.pool import Pool, Transaction
from repoman.database.users import COLUMNS, insert, user_from_row
from repoman.model import ADMINS, Binding, Identity, User, check_dns
from repoman.user_records import AdminFate, Login, NewUser

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
    """The :class:`~repoman.user_records.IAccountRecords` of PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def by_identity(self, identity: Identity) -> User | None:
        """The user whose DN this is, if its CA is the one that is bound; binds what is not yet."""
        rows = await self._pool.ask(
            f"SELECT {COLUMNS}, login.issuer, login.anchor"  # noqa: S608 a constant
            " FROM account a JOIN login USING (account_id) WHERE login.subject = %s",
            (identity.subject,),
            lambda row: (user_from_row(row), Binding(*row[-2:])),
        )
        if not rows:
            return None
        user: User
        binding: Binding | None
        user, binding = rows[0]
        if binding.admits(identity) and binding != binding.completed(identity):
            binding = await self._bind(identity)
        return user if binding is not None and binding.admits(identity) else None

    async def is_registered(self, dn: str) -> bool:
        """Some user has this DN, whichever CA is bound."""
        known = "SELECT true FROM login WHERE subject = %s"
        return bool(await self._pool.ask(known, (dn,), lambda row: row[0]))

    async def _bind(self, identity: Identity) -> Binding | None:
        """Bind what is not bound yet; return what is bound now, or ``None`` without such a DN."""

        # Two first logins at once: whoever locks the row first decides whose it is.
        async def work(transaction: Transaction) -> Binding | None:
            row = await transaction.run_one(
                "SELECT issuer, anchor, user_name FROM login JOIN account USING (account_id)"
                " WHERE subject = %s FOR NO KEY UPDATE OF login",
                (identity.subject,),
            )
            if row is None:
                return None
            found = Binding(*row[:2])
            bound = found.completed(identity) if found.admits(identity) else found
            if bound != found:
                await _save(transaction, identity.subject, bound, row[2])
            return bound

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
        :raises Invalid: the user has as many DNs as may be.
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
                dns = await transaction.run(
                    "SELECT subject FROM login WHERE account_id = %s", account
                )
                check_dns([*(dn for (dn,) in dns), login.dn])
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


async def _save(transaction: Transaction, dn: str, binding: Binding, user_name: str) -> None:
    await transaction.run(
        "UPDATE login SET issuer = %s, anchor = %s WHERE subject = %s",
        (binding.issuer, binding.anchor, dn),
    )
    # It is this user who comes: until now nobody could know.
    ORIGIN.set(evolve(ORIGIN.get(), user=user_name))
    detail = {"dn": dn, "issuer_dn": binding.issuer, "anchor_dn": binding.anchor}
    transaction.record(Change("user.bind", user_name, detail))
