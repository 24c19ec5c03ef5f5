"""Users and groups in the database: what holds when several ask at once."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
import pytest_twisted
from twisted.internet import reactor

from repoman.database.accounts import AccountRecords
from repoman.database.migrate import migrate, shipped
from repoman.database.pool import Pool
from repoman.errors import AlreadyExists, Conflict, Invalid, Protected
from repoman.model import ADMINS, Binding, Identity, User
from repoman.user_records import NewUser
from tests.postgres import drop_database, fresh_database, on_server
from tests.records import Records, at_once

FAR = datetime(2099, 1, 1, tzinfo=timezone.utc)


async def active_admins(records: Records) -> int:
    (row,) = await records.run(
        "SELECT count(*) FROM membership JOIN user_group g USING (group_id)"
        " JOIN account USING (account_id) WHERE g.name = 'admins' AND NOT suspended"
    )
    return int(row[0])


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("way", ["removed", "suspended", "deleted", "each another way"])
async def test_two_administrators_who_end_each_other_leave_one(records: Records, way: str) -> None:
    group = await records.groups.find(ADMINS)
    assert group is not None

    async def end(user: User, way: str) -> None:
        if way == "removed":
            await records.groups.remove_member(group, user)
        elif way == "suspended":
            await records.users.change(user, {"suspended": True})
        else:
            await records.users.delete(user)

    for attempt in range(10):
        pair = [await records.user(f"{letter}{attempt}", ADMINS) for letter in "ab"]
        ways = ("removed", "deleted") if way == "each another way" else (way, way)
        results = await at_once(*(end(u, w) for u, w in zip(pair, ways, strict=True)))
        assert [type(r) for r in results if r] == [Protected]
        assert await active_admins(records) == 1
        await records.run(
            "DELETE FROM membership WHERE group_id = (SELECT group_id FROM user_group"
            " WHERE name = 'admins')"
        )


@pytest_twisted.ensureDeferred
async def test_a_suspended_administrator_does_not_count_as_one(records: Records) -> None:
    active = await records.user("a", ADMINS)
    suspended = await records.user("b", ADMINS, suspended=True)
    with pytest.raises(Protected):
        await records.users.delete(active)
    await records.users.delete(suspended)
    assert await active_admins(records) == 1


@pytest_twisted.ensureDeferred
async def test_deleting_a_user_gives_their_bytes_to_the_sweeper(records: Records) -> None:
    alice, bob = await records.user("alice"), await records.user("bob")
    kept = await records.store(await records.image("bob", "kept"), bob, 7)
    gone = await records.store(await records.image("alice", "gone", "xen", "kvm"), alice, 5)
    await records.store(gone, alice, 6, "kvm")
    await records.users.delete(alice)
    marked = await records.blobs.to_delete(10, 0.0)
    assert len(marked) == 2
    assert kept.files["xen"].blob not in marked
    assert await records.users.find("alice") is None
    assert await records.found("alice", "gone") is None
    assert (await records.read("bob")).used == 7


@pytest_twisted.ensureDeferred
async def test_deleting_a_user_ends_the_uploads_to_their_images(records: Records) -> None:
    alice = await records.user("alice")
    blob = await records.begin(await records.image("alice", "one"), alice, 100)
    await records.users.delete(alice)
    with pytest.raises(Conflict):
        await records.finish(blob, 100)
    assert await records.blobs.to_delete(10, 0.0) == [blob]


@pytest_twisted.ensureDeferred
async def test_a_deleted_users_name_is_free_again(records: Records) -> None:
    await records.users.delete(await records.user("alice"))
    await records.user("alice")
    await records.users.delete(await records.read("alice"))
    await records.user("carol")
    await records.image("carol", "x", "alice")  # a hypervisor may be called so now


@pytest_twisted.ensureDeferred
async def test_users_and_hypervisors_share_one_namespace(records: Records) -> None:
    with pytest.raises(AlreadyExists):
        await records.user("kvm")
    with pytest.raises(AlreadyExists):
        await records.user("raw")
    alice = await records.user("alice")
    for taken in ("kvm", "raw", "default"):
        with pytest.raises(AlreadyExists):
            await records.users.change(alice, {"user_name": taken})
    assert await records.read("alice") == alice


@pytest_twisted.ensureDeferred
async def test_a_rename_touches_no_bytes(records: Records) -> None:
    alice = await records.user("alice")
    before = await records.store(await records.image("alice", "one"), alice, 5)
    await records.users.change(alice, {"user_name": "alicia"})
    after = await records.found("alicia", "one")
    assert after is not None
    assert after.files == before.files
    assert await records.users.find("alice") is None
    new = NewUser("alice", ("/C=CA/CN=another",))
    await records.users.create(new)


@pytest_twisted.ensureDeferred
async def test_the_issuer_is_bound_at_the_first_login(records: Records) -> None:
    await records.user("alice")

    async def login(issuer: str) -> User | None:
        return await records.accounts.by_identity(Identity("/C=CA/CN=alice", issuer, False, 0, FAR))

    first, second = await at_once(login("/CN=One CA"), login("/CN=Other CA"))
    assert (first is None) != (second is None)
    bound = "/CN=One CA" if first else "/CN=Other CA"
    assert [await login(ca) is not None for ca in ("/CN=One CA", "/CN=Other CA")] == [
        bound == "/CN=One CA",
        bound == "/CN=Other CA",
    ]


@pytest_twisted.ensureDeferred
async def test_the_issuer_can_be_given_with_the_user(records: Records) -> None:
    await records.user("alice", issuer_dn="/CN=Right CA")
    other = Identity("/C=CA/CN=alice", "/CN=Wrong CA", False, 0, FAR)
    right = Identity("/C=CA/CN=alice", "/CN=Right CA", False, 0, FAR)
    assert await records.accounts.by_identity(other) is None
    assert await records.accounts.by_identity(right) is not None


@pytest_twisted.ensureDeferred
async def test_a_new_first_dn_forgets_the_old_ones_issuer(records: Records) -> None:
    alice = await records.user("alice", issuer_dn="/CN=Old CA")
    await records.users.change(alice, {"client_dns": ("/CN=new", "/C=CA/CN=alice")})
    assert (await records.read("alice")).client_dns == ("/CN=new", "/C=CA/CN=alice")
    new = Identity("/CN=new", "/CN=New CA", False, 0, FAR)
    old = Identity("/C=CA/CN=alice", "/CN=New CA", False, 0, FAR)
    assert await records.accounts.by_identity(new) is not None
    assert await records.accounts.by_identity(old) is None


@pytest_twisted.ensureDeferred
async def test_what_is_taken_is_a_conflict_and_changes_nothing(records: Records) -> None:
    await records.user("alice", email="a@example.org")
    bob = await records.user("bob")
    for changes in (
        {"user_name": "alice"},
        {"email": "a@example.org"},
        {"client_dns": ("/CN=fine", "/C=CA/CN=alice")},
    ):
        with pytest.raises(AlreadyExists):
            await records.users.change(bob, {"full_name": "Changed", **changes})
    assert await records.read("bob") == bob


@pytest_twisted.ensureDeferred
async def test_one_of_many_who_want_a_name_gets_it(records: Records) -> None:
    results = await at_once(
        *(records.users.create(NewUser("alice", (f"/CN={n}",))) for n in range(8))
    )
    assert [r for r in results if r is None] == [None]
    assert {type(r) for r in results if r} == {AlreadyExists}


@pytest_twisted.ensureDeferred
async def test_a_user_of_an_unknown_group_is_not_made(records: Records) -> None:
    with pytest.raises(Invalid):
        await records.user("alice", "nothing")
    assert await records.users.find("alice") is None


@pytest_twisted.ensureDeferred
async def test_an_older_database_is_carried_over_with_its_bindings(template: str) -> None:
    """Who was bound, to whom, and that nobody else gets in by it."""
    dsn = fresh_database(template)
    pool = Pool(reactor, dsn, size=2)
    await pool.start()
    before = [m.name for m in shipped()].index("anchor")
    await migrate(pool, shipped()[:before])
    for statement in (
        "INSERT INTO word VALUES ('alice', 'user')",
        "INSERT INTO account (user_name) VALUES ('alice')",
        "INSERT INTO login (subject, issuer, account_id) SELECT s, i, account_id FROM account,"
        " (VALUES ('/CN=inside', '/CN=CA'), ('/CN=outside', '/CN=Sub'), ('/CN=new', NULL))"
        " AS l (s, i)",
    ):
        on_server(dsn, statement)
    await migrate(pool)
    accounts = AccountRecords(pool)

    async def login(subject: str, issuer: str, anchor: str, *, known: bool = False) -> bool:
        identity = Identity(subject, issuer, False, 0, FAR, anchor, known)
        return await accounts.by_identity(identity) is not None

    for subject, issuer, known in (
        ("/CN=inside", "/CN=CA", True),
        ("/CN=outside", "/CN=Sub", False),
        ("/CN=new", "/CN=Any", False),
    ):
        if subject != "/CN=new":
            assert not await login(subject, "/CN=Other", "/CN=Other", known=True)
        assert await login(subject, issuer, "/CN=Root", known=known)
        assert not await login(subject, issuer, "/CN=Evil")
        assert await login(subject, issuer, "/CN=Root", known=known)
    assert on_server(dsn, "SELECT DISTINCT anchor FROM login") == [("/CN=Root",)]
    await pool.stop()
    drop_database(dsn)


@pytest_twisted.ensureDeferred
async def test_two_first_logins_under_one_cas_name_bind_one_anchor(records: Records) -> None:
    await records.user("alice", issuer_dn="/CN=Sub")

    async def login(anchor: str) -> User | None:
        identity = Identity("/C=CA/CN=alice", "/CN=Sub", False, 0, FAR, anchor)
        return await records.accounts.by_identity(identity)

    names = [f"/CN=Root {n}" for n in range(4)]
    logins = await at_once(*map(login, names))
    assert sum(found is not None for found in logins) == 1
    [(bound,)] = await records.run("SELECT anchor FROM login")
    assert [await login(name) is not None for name in names] == [n == bound for n in names]
    assert (await records.read("alice")).bindings == (Binding("/CN=Sub", bound),)
