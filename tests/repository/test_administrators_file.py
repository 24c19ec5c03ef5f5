"""The file of administrators counts once for each DN, and ends no start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import pytest_twisted
from twisted.internet import reactor

from repoman.database.accounts import AccountRecords
from repoman.database.migrate import migrate, shipped
from repoman.database.pool import Pool
from repoman.database.users import UserRecords
from repoman.model import ADMINS
from repoman.repository.accounts import Accounts, AdminLine, Founded
from repoman.user_records import NewUser
from tests.postgres import drop_database, fresh_database
from tests.records import Records

ROGER = AdminLine("roger", "roger@example.org", "/C=CA/CN=Roger")


async def found(records: Records, *lines: AdminLine) -> tuple[list[str], list[str]]:
    """What a start makes of a file."""
    founded = await Accounts(records.accounts, "read-only").ensure_admins(lines)
    return list(founded.created), list(founded.refused)


async def names(records: Records) -> set[str]:
    return set(await records.users.names("", 1000))


@pytest_twisted.ensureDeferred
async def test_an_administrator_is_made_once(records: Records) -> None:
    assert await found(records, ROGER, ROGER) == (["roger"], [])
    assert await found(records, ROGER) == ([], [])
    assert (await records.read("roger")).is_admin


async def delete(records: Records) -> None:
    await records.users.delete(await records.read("roger"))


async def rename(records: Records) -> None:
    await records.users.change(await records.read("roger"), {"user_name": "other"})


async def give_another_dn(records: Records) -> None:
    await records.users.change(await records.read("roger"), {"client_dns": ("/CN=Another",)})


async def demote(records: Records) -> None:
    admins = await records.groups.find(ADMINS)
    assert admins is not None
    await records.groups.remove_member(admins, await records.read("roger"))


async def replace(records: Records) -> None:
    await delete(records)
    await records.user("roger")


@pytest.mark.parametrize("end", [delete, rename, give_another_dn, demote, replace])
@pytest_twisted.ensureDeferred
async def test_what_an_administrator_undid_stays_undone(
    records: Records, end: Callable[[Records], Awaitable[None]]
) -> None:
    await records.user("boss", ADMINS)
    await found(records, ROGER)
    await end(records)
    before = [await records.read(name) for name in sorted(await names(records))]
    renamed = AdminLine("anew", "anew@example.org", ROGER.dn)
    assert await found(records, ROGER, renamed) == ([], [])
    assert [await records.read(name) for name in sorted(await names(records))] == before


COLLISIONS = {
    "name of a user": AdminLine("plain", "new@example.org", "/CN=New"),
    "name of a hypervisor": AdminLine("kvm", "new@example.org", "/CN=New"),
    "reserved name": AdminLine("default", "new@example.org", "/CN=New"),
    "address": AdminLine("new", "plain@example.org", "/CN=New"),
    "DN of a user": AdminLine("new", "new@example.org", "/C=CA/CN=plain"),
    "DN and name of a user": AdminLine("plain", "plain@example.org", "/C=CA/CN=plain"),
    "name of an administrator": AdminLine("boss", "boss@example.org", "/CN=New"),
}


@pytest.mark.parametrize("line", COLLISIONS.values(), ids=COLLISIONS)
@pytest_twisted.ensureDeferred
async def test_a_collision_is_told_and_changes_nobody(records: Records, line: AdminLine) -> None:
    await records.user("boss", ADMINS)
    plain = await records.user("plain", email="plain@example.org")
    created, [told] = await found(records, line, ROGER)
    assert created == ["roger"]
    assert told.startswith(f"{line.user_name} was not created: ")
    assert await names(records) == {"boss", "plain", "roger"}
    assert await records.read("plain") == plain


@pytest_twisted.ensureDeferred
async def test_a_line_whose_name_or_address_was_taken_is_tried_again(records: Records) -> None:
    await records.user("plain", email="plain@example.org")
    for line in (COLLISIONS["name of a user"], COLLISIONS["address"]):
        created, refused = await found(records, line)
        assert (created, len(refused)) == ([], 1)
        mended = AdminLine(f"{line.user_name}x", f"x{line.email}", f"{line.dn} x{line.user_name}")
        assert await found(records, mended) == ([mended.user_name], [])


@pytest_twisted.ensureDeferred
async def test_who_was_removed_before_the_upgrade_does_not_come_back(template: str) -> None:
    """The audit of an older release knows of administrators that were made."""
    dsn = fresh_database(template)
    pool = Pool(reactor, dsn, size=2)
    await pool.start()
    try:
        known = shipped()
        [number] = [m.number for m in known if m.name == "rights"]
        await migrate(pool, known[: number - 1])
        old = UserRecords(pool)
        for name in ("boss", "roger"):
            await old.create(NewUser(name, (f"/CN={name}",), groups=(ADMINS,)))
        roger = await old.find("roger")
        assert roger is not None
        await old.delete(roger)
        await migrate(pool, known)
        accounts = Accounts(AccountRecords(pool), "read-only")
        lines = [AdminLine(name, None, f"/CN={name}") for name in ("boss", "roger", "fresh")]
        assert await accounts.ensure_admins(lines) == Founded(("fresh",), ())
        assert await old.names("", 1000) == ["boss", "fresh"]
    finally:
        await pool.stop()
        drop_database(dsn)
