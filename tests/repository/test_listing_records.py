"""Listings: page by page the same as at once, and nothing that may not be seen."""

from __future__ import annotations

import random
from datetime import datetime, timezone

import pytest
import pytest_twisted
from attrs import evolve

from repoman.model import Caller, Image
from repoman.policy import may
from repoman.records import Listing, Place
from tests.records import Records

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def place(image: Image, sort: str) -> tuple[str | float | datetime | None, int]:
    size = image.default_file.size if image.default_file else -1
    return {"name": image.name, "modified": image.modified, "size": size}[sort], image.id


async def many_images(records: Records) -> None:
    """Owners with images of few names, times and sizes, so that most tie; many have no bytes."""
    chance = random.Random(7)
    for owner in ("alice", "bob", "carol"):
        user = await records.user(owner)
        for number in range(12):
            image = await records.image(
                owner, f"{chance.choice('xyz')}{number}", "xen", "kvm",
                os_type=chance.choice([None, "linux", "bsd"]),
                description=chance.choice([None, "50%_off", "Plain"]),
            )  # fmt: skip
            if chance.random() < 0.5:
                await records.store(
                    image, user, chance.choice([0, 5, 9]), chance.choice(["xen", "kvm"])
                )
    await records.run(
        "UPDATE image SET modified = %s::timestamptz + (image_id %% 3) * interval '1 h'", NOON
    )
    # The same name with several owners.
    await records.run("UPDATE image SET name = 'same' WHERE name LIKE '%%7'")


@pytest_twisted.ensureDeferred
async def test_pages_are_the_whole_in_every_order(records: Records) -> None:
    await many_images(records)
    for sort in ("name", "modified", "size"):
        for descending in (False, True):
            wanted = Listing(sort=sort, descending=descending)
            whole = await records.images.listing(wanted)
            assert len(whole) == 36
            keys = [place(image, sort) for image in whole]
            assert keys == sorted(keys, reverse=descending)
            paged: list[Image] = []
            while page := await records.images.listing(
                evolve(wanted, limit=5, after=place(paged[-1], sort) if paged else None)
            ):
                paged += page
            assert paged == whole
            named = [Place(i.owner, i.name, place(i, sort)) for i in whole]
            assert await records.images.places(wanted) == named
            some = evolve(wanted, after=named[3].at, until=named[9].at)
            assert await records.images.listing(some) == whole[4:10]


@pytest_twisted.ensureDeferred
async def test_a_page_stays_put_while_others_come_and_go(records: Records) -> None:
    await many_images(records)
    first = await records.images.listing(Listing(limit=10))
    rest = await records.images.listing(Listing(after=place(first[-1], "name")))
    await records.images.delete(first[0])
    await records.image("alice", "aaaa")
    assert await records.images.listing(Listing(after=place(first[-1], "name"))) == rest


@pytest_twisted.ensureDeferred
async def test_filters_narrow(records: Records) -> None:
    await many_images(records)
    whole = await records.images.listing(Listing())

    async def found(**wanted: object) -> list[Image]:
        return await records.images.listing(Listing(**wanted))  # type: ignore[arg-type]

    assert await found(owner="bob") == [i for i in whole if i.owner == "bob"]
    linux = [i for i in whole if i.os_type == "linux"]
    assert await found(exact={"os_type": "linux"}) == linux
    assert await found(exact={"os_type": "linux"}, owner="bob") == [
        i for i in linux if i.owner == "bob"
    ]
    assert await found(text="SAME") == [i for i in whole if i.name == "same"]
    assert await found(text="%_O") == [i for i in whole if i.description == "50%_off"]
    assert await found(hypervisor="kvm") == whole
    assert await found(hypervisor="bare") == []


@pytest_twisted.ensureDeferred
async def test_a_listing_is_what_the_policy_lets_one_see(records: Records) -> None:
    await many_images(records)
    chance = random.Random(3)
    for name in ("circle", "square"):
        await records.run("INSERT INTO user_group (name) VALUES (%s)", name)
    await records.run(
        "INSERT INTO group_permission SELECT group_id, 'image_modify' FROM user_group"
        " WHERE name = 'square'"
    )
    await records.user("dora", "circle")
    await records.user("eve", "square")
    await records.user("root", "admins")
    for image in await records.images.listing(Listing()):
        if chance.random() < 0.3:
            await records.images.share(image, user=chance.choice(["alice", "bob", "eve"]))
        if chance.random() < 0.3:
            await records.images.share(image, group="circle")
    whole = await records.images.listing(Listing())
    for name in ("alice", "bob", "carol", "dora", "eve", "root"):
        viewer = await records.read(name)
        seen = [i for i in whole if may("image.see", Caller(viewer), i)]
        assert await records.images.listing(Listing(viewer=viewer)) == seen
        (profile,) = await records.users.profiles(viewer, user_name="alice")
        assert list(profile.images) == sorted(i.name for i in seen if i.owner == "alice")
        shared = await records.images.listing(Listing(shared_with_user=name))
        assert shared == [
            i for i in whole if name in i.shared_users or set(viewer.groups) & set(i.shared_groups)
        ]
    shared_out = await records.images.listing(Listing(owner="bob", shared_out=True))
    assert shared_out == [
        i for i in whole if i.owner == "bob" and (i.shared_users or i.shared_groups)
    ]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("group", [None, "users", "admins"])
async def test_users_are_listed_in_one_query(
    records: Records, group: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        user = await records.user(f"user{number}", *(["admins"] if number == 3 else []))
        await records.store(await records.image(user.user_name, "one"), user, 5)
    viewer = await records.read("user1")
    asked = []
    query = records.pool.query
    monkeypatch.setattr(
        records.pool, "query", lambda sql, *params: asked.append(sql) or query(sql, *params)
    )
    profiles = await records.users.profiles(viewer, group=group)
    assert len(asked) == 1
    assert len(profiles) == (1 if group == "admins" else 5)
    await records.groups.listing()
    await records.images.listing(Listing(viewer=viewer))
    assert len(asked) == 3
