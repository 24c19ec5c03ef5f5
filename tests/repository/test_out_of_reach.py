"""To who may not know of an image it is as if it were not there, in all that it costs, too."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from psycopg2.extensions import make_dsn
from twisted.internet import reactor

from repoman.database.answers import Answers
from repoman.database.images import ImageRecords
from repoman.database.pool import Pool, Transaction
from repoman.errors import Missing, NotIdentified
from repoman.model import PERMISSIONS, Caller, ImageRef, User
from repoman.policy import may
from repoman.reach import reach
from repoman.records import ImageLimits
from repoman.repository.images import FileRef, Images
from repoman.user_records import NewGroup
from tests.records import QUOTA, Records, wait_for

ACTIONS = (
    "image.see", "image.look", "image.read_bytes", "image.write_bytes", "image.modify",
    "image.publish", "image.give", "image.arrange_files", "image.delete", "image.share",
)  # fmt: skip


async def populate(records: Records) -> list[User]:
    """Users who each have something else to do with the images of ``owner``; with nobody's last."""
    await records.user("owner")
    await records.user("plain")
    await records.user("friend")
    await records.user("fellow")
    await records.user("root", "admins")
    await records.groups.create(NewGroup("circle", ("fellow", "owner")))
    for permission in PERMISSIONS:
        await records.user(f"of-{permission}")
        shared = ("owner",) if permission.endswith("_group") else ()
        group = NewGroup(f"group-{permission}", (f"of-{permission}", *shared), (permission,))
        await records.groups.create(group)
        # ... and the same permission, through a group that the owner is not in.
        await records.user(f"beside-{permission}")
        await records.groups.create(
            NewGroup(f"beside-{permission}", (f"beside-{permission}",), (permission,))
        )
    for name in ("private", "public", "shared"):
        is_public = name == "public"
        await records.image("owner", name, "xen", "kvm", unauthenticated_access=is_public)
    shared = await records.found("owner", "shared")
    assert shared is not None
    await records.images.share(shared, user="friend")
    await records.images.share(shared, group="circle")
    return [await records.read(name) for name in await records.users.names("", 999)]


@pytest_twisted.ensureDeferred
async def test_an_image_is_found_by_those_who_may_do_anything_to_it(records: Records) -> None:
    everybody = [*await populate(records), None]
    found = set()
    for user, name in itertools.product(everybody, ("private", "public", "shared")):
        image = await records.found("owner", name)
        assert image is not None
        caller = Caller(user)
        is_business = any(may(action, caller, image) for action in ACTIONS)
        within = reach(user)
        expected = image if is_business else None
        own = user.user_name if user else None
        assert await records.images.find("owner", name, within) == expected
        assert await records.images.find_either("owner", own, name, within) == expected
        of_own = await records.images.find_either("kvm", own, name, within)
        assert of_own == (expected if own == "owner" else None)
        if is_business:
            found.add((own, name))
    assert ("plain", "private") not in found
    assert ("friend", "shared") in found
    assert ("beside-image_modify_group", "private") not in found
    assert ("of-image_delete_group", "private") in found
    assert (None, "public") in found
    assert (None, "shared") not in found


@define
class Ledger:
    """What was sent to the database."""

    sent: list[tuple[str, list[Any]]] = field(factory=list)


class Watched(Pool):
    """A pool whose every statement is noted, as the database gets it."""

    ledger: Ledger

    async def _ask_once(self, statement: Any, values: list[Any]) -> list[tuple[Any, ...]]:
        rows = await super()._ask_once(statement, values)
        self.ledger.sent.append((statement.name, rows))
        return rows

    async def _query(self, sql: str, params: Any) -> list[tuple[Any, ...]]:
        rows = await super()._query(sql, params)
        self.ledger.sent.append((sql, rows))
        return rows

    async def _interact(self, work: Any) -> Any:
        self.ledger.sent.append(("a transaction", []))
        return await super()._interact(work)


@pytest.fixture(params=[True, False], ids=["alone", "one of several"])
def watched(request: pytest.FixtureRequest, template: str, records: Records) -> Iterator[Watched]:
    [(name,)] = wait_for(records.run("SELECT current_database()"))
    pool = Watched(reactor, make_dsn(template, dbname=name), size=2, is_alone=request.param)
    pool.ledger = Ledger()
    pool._answers = Answers(lambda: 0.0)  # however slowly this machine goes just now
    wait_for(pool.start())
    yield pool
    wait_for(pool.stop())


Attempt = Callable[[Images, Caller, str], Awaitable[Any]]


def act(action: str) -> Attempt:
    return lambda images, caller, name: images.find(caller, ImageRef("owner", name), action)


ATTEMPTS: dict[str, Attempt] = {
    **{action: act(action) for action in ACTIONS},
    "page": lambda i, c, name: i.look(c, ImageRef("owner", name)),
    "raw": lambda i, c, name: i.find_file(c, FileRef(name, word="owner")),
    "raw of three parts": lambda i, c, name: i.find_file(
        c, FileRef(name, owner="owner", hypervisor="kvm")
    ),
    "change": lambda i, c, name: i.change(c, ImageRef("owner", name), {"description": "x"}),
    "publish": lambda i, c, name: i.change(
        c, ImageRef("owner", name), {"unauthenticated_access": True}
    ),
    "delete": lambda i, c, name: i.delete(c, ImageRef("owner", name)),
    "share": lambda i, c, name: i.share(c, ImageRef("owner", name), user="plain"),
    "share with a group": lambda i, c, name: i.share(c, ImageRef("owner", name), group="users"),
    "unshare": lambda i, c, name: i.unshare(c, ImageRef("owner", name), user="plain"),
}
"""All that begins with an image's name."""


async def nothing(transaction: Transaction) -> None:
    """What a transaction does that changes nothing."""


async def cost(pool: Watched, attempt: Attempt, caller: Caller, name: str) -> Any:
    """What an attempt asks of the database, twice, and what it is told."""
    await pool.interact(nothing)  # whoever writes forgets what was asked before
    pool.ledger.sent.clear()
    told, images = [], Images(ImageRecords(pool), QUOTA, lambda: None, ImageLimits(9, 9, 9))
    for _ in range(2):
        with pytest.raises((Missing, NotIdentified)) as refused:
            await attempt(images, caller, name)
        told.append((type(refused.value), refused.value.message.replace(name, "NAME")))
    return told, list(pool.ledger.sent)


@pytest.mark.parametrize("who", ["plain", "fellow", "of-user_modify", None])
@pytest_twisted.ensureDeferred
async def test_what_is_not_there_costs_what_one_may_not_know_of(
    records: Records, watched: Watched, who: str | None
) -> None:
    await populate(records)
    alice = await records.read("owner")
    private = await records.found("owner", "private")
    assert private is not None
    for hypervisor in ("xen", "kvm"):
        await records.store(private, alice, 5, hypervisor)
    await records.images.share(private, user="root")
    caller = Caller(await records.read(who) if who else None, reason="You came as nobody.")
    for what, attempt in ATTEMPTS.items():
        there = await cost(watched, attempt, caller, "private")
        assert there == await cost(watched, attempt, caller, "missing"), what
        asked = 1 if watched.is_alone else 2
        assert len(there[1]) == asked or who is None, what


@pytest_twisted.ensureDeferred
async def test_a_name_longer_than_any_is_neither_asked_for_nor_remembered(
    records: Records, watched: Watched
) -> None:
    plain = Caller(await records.user("plain"))
    images = Images(ImageRecords(watched), QUOTA, lambda: None, ImageLimits(9, 9, 9))
    for owner, name in (("owner", "x" * 101), ("x" * 10_000, "one")):
        with pytest.raises(Missing):
            await images.find(plain, ImageRef(owner, name))
        with pytest.raises(Missing):
            await images.find_file(plain, FileRef(name, word=owner))
    assert watched.ledger.sent == []
