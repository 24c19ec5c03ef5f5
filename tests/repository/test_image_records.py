"""Images in the database: metadata that is enforced, and what quotas count."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import pytest_twisted

from repoman.errors import AlreadyExists, Conflict, Invalid, Missing, Protected, QuotaExceeded
from repoman.holders import UploadTerms
from repoman.model import Caller, Image, ImageRef
from repoman.records import ImageLimits
from repoman.repository.images import Images
from repoman.user_records import NewGroup
from tests.records import QUOTA, Records, at_once

DAY = 86400.0


def days_ago(days: float) -> datetime:
    return datetime.now(timezone.utc) - timedelta(days=days)


@pytest_twisted.ensureDeferred
async def test_rename_and_new_owner_touch_no_bytes_and_move_the_quota(records: Records) -> None:
    alice, _ = await records.user("alice"), await records.user("bob")
    before = await records.store(await records.image("alice", "one"), alice, 5)
    after = await records.images.change(before, {"name": "two", "owner": "bob"}, QUOTA)
    assert (after.owner, after.name, after.files) == ("bob", "two", before.files)
    assert await records.found("alice", "one") is None
    assert [(await records.read(name)).used for name in ("alice", "bob")] == [0, 5]


@pytest_twisted.ensureDeferred
async def test_a_name_or_owner_that_is_taken_is_a_conflict(records: Records) -> None:
    for owner in ("alice", "bob"):
        await records.user(owner)
        for name in ("one", "two"):
            await records.image(owner, name)
    image = await records.found("alice", "one")
    assert image is not None
    for changes in ({"name": "two"}, {"owner": "bob"}):
        with pytest.raises(AlreadyExists):
            await records.images.change(image, {"description": "new", **changes}, QUOTA)
    with pytest.raises(Invalid):
        await records.images.change(image, {"owner": "nobody"}, QUOTA)
    assert await records.found("alice", "one") == image


LATE: dict[str, Callable[[Records, Image], Awaitable[Any]]] = {
    "change": lambda r, image: r.images.change(image, {"unauthenticated_access": True}, QUOTA),
    "give on": lambda r, image: r.images.change(image, {"owner": "alice"}, QUOTA),
    "delete": lambda r, image: r.images.delete(image),
    "share": lambda r, image: r.images.share(image, user="alice"),
    "share with a group": lambda r, image: r.images.share(image, group="users"),
    "end a share": lambda r, image: r.images.unshare(image, user="carol"),
}
"""What the owner of a moment ago may have begun before the image changed hands."""


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@pytest_twisted.ensureDeferred
async def test_who_has_given_an_image_away_has_no_late_word(
    records: Records, late: Callable[[Records, Image], Awaitable[Any]]
) -> None:
    for name in ("alice", "bob", "carol"):
        await records.user(name)
    seen_before = await records.image("alice", "one")
    given = await records.images.change(seen_before, {"owner": "bob"}, QUOTA)
    await records.images.share(given, user="carol")
    given = await records.found("bob", "one")
    with pytest.raises(Missing, match="given away meanwhile"):
        await late(records, seen_before)
    assert await records.found("bob", "one") == given


@pytest_twisted.ensureDeferred
async def test_an_expiry_set_by_who_may_not_remove_files_keeps_them(records: Records) -> None:
    owner = await records.user("owner")
    await records.user("root", "admins")
    for permission in ("image_modify", "image_modify_group"):
        await records.user(permission)
        group = NewGroup(f"with-{permission}", (permission, "owner"), (permission,))
        await records.groups.create(group)
    # The group permits its owner as well; who owns an image may remove its files.
    images = Images(records.images, QUOTA, lambda: None, ImageLimits(9, 9, 9))
    past = {"expires": days_ago(90)}
    for who in ("owner", "root", "image_modify", "image_modify_group"):
        image = await records.store(await records.image("owner", who), owner, 5)
        caller = Caller(await records.read(who))
        await images.change(caller, ImageRef("owner", image.name), past)
        await images.change(caller, ImageRef("owner", image.name), {"description": "x"})
    await records.run("UPDATE image SET uploaded = %s", days_ago(50))
    assert await records.images.expire_images(DAY) == 2
    left = {name for name in ("owner", "root", "image_modify", "image_modify_group")
            if (found := await records.found("owner", name)) and found.files}  # fmt: skip
    assert left == {"image_modify", "image_modify_group"}
    # Until the owner says so: only who sees what is there may say it again without a change.
    caller = Caller(owner)
    await images.change(caller, ImageRef("owner", "image_modify"), past)
    assert await records.images.expire_images(DAY) == 1


@pytest_twisted.ensureDeferred
async def test_what_has_just_become_read_only_stays_as_it_is(records: Records) -> None:
    await records.user("alice")
    seen_before = await records.image("alice", "one")
    locked = await records.images.change(seen_before, {"read_only": True}, QUOTA)
    with pytest.raises(Protected):
        await records.images.change(seen_before, {"description": "new"}, QUOTA)
    with pytest.raises(Protected):
        await records.images.delete(seen_before)
    assert await records.found("alice", "one") == locked
    await records.images.change(locked, {"read_only": False}, QUOTA)
    await records.images.delete(seen_before)


@pytest_twisted.ensureDeferred
async def test_a_late_progress_does_not_bring_back_what_was_refused(records: Records) -> None:
    alice = await records.user("alice")
    image = await records.image("alice", "one")
    terms = UploadTerms(100, QUOTA, 4, 300.0, DAY)
    blob = (await records.blobs.begin(image, "xen", alice, terms)).blob
    await records.blobs.progress({blob: 10}, 60.0)
    await records.blobs.pause(blob, 5, terms)
    await records.blobs.progress({blob: 64}, 60.0)
    assert (await records.blobs.upload(blob, alice)).offset == 5


@pytest_twisted.ensureDeferred
async def test_who_takes_an_image_needs_room_for_it(records: Records) -> None:
    alice, _ = await records.user("alice"), await records.user("bob", quota=4)
    image = await records.store(await records.image("alice", "one"), alice, 5)
    with pytest.raises(QuotaExceeded):
        await records.images.change(image, {"owner": "bob"}, QUOTA)
    assert [(await records.read(name)).used for name in ("alice", "bob")] == [5, 0]


@pytest_twisted.ensureDeferred
async def test_removing_a_hypervisor_removes_its_file(records: Records) -> None:
    alice = await records.user("alice")
    image = await records.store(await records.image("alice", "one", "xen", "kvm"), alice, 5)
    image = await records.store(image, alice, 7, "kvm")
    after = await records.images.change(image, {"hypervisors": ("kvm", "bare")}, QUOTA)
    assert after.hypervisors == ("kvm", "bare")
    assert set(after.files) == {"kvm"}
    assert await records.blobs.to_delete(10, 0.0) == [image.files["xen"].blob]
    assert (await records.read("alice")).used == 7


@pytest_twisted.ensureDeferred
async def test_the_order_of_hypervisors_decides_the_default_file(records: Records) -> None:
    alice = await records.user("alice")
    image = await records.store(await records.image("alice", "one", "xen", "kvm"), alice, 5)
    image = await records.store(image, alice, 7, "kvm")
    assert image.default_file is not None
    assert image.default_file.size == 5
    turned = await records.images.change(image, {"hypervisors": ("kvm", "xen")}, QUOTA)
    assert turned.default_file is not None
    assert turned.default_file.size == 7
    assert turned.files == image.files


@pytest_twisted.ensureDeferred
async def test_a_hypervisor_cannot_have_a_users_name(records: Records) -> None:
    await records.user("alice")
    image = await records.image("alice", "one", "newkind")
    for taken in ("alice", "raw"):
        with pytest.raises(Conflict):
            await records.images.change(image, {"hypervisors": (taken,)}, QUOTA)
    with pytest.raises(AlreadyExists):
        await records.user("newkind")


@pytest_twisted.ensureDeferred
async def test_bytes_go_some_time_after_the_image_expired(records: Records) -> None:
    alice = await records.user("alice")
    long_ago, lately = days_ago(40), days_ago(20)
    for name, expires in (
        ("over", long_ago), ("kept", lately), ("locked", long_ago),
        ("endless", None), ("again", long_ago),
    ):  # fmt: skip
        image = await records.image("alice", name, expires=expires)
        await records.store(image, alice, 5)
    # what is read-only takes no bytes, so it became that later
    await records.run("UPDATE image SET read_only = true WHERE name = 'locked'")
    # "again" got its bytes after it had expired, and that lately
    await records.run("UPDATE image SET uploaded = %s WHERE name <> 'again'", days_ago(50))
    assert await records.images.expire_images(30 * DAY) == 1
    over = await records.found("alice", "over")
    assert over is not None
    assert over.files == {}
    assert len(await records.blobs.to_delete(10, 0.0)) == 1
    assert (await records.read("alice")).used == 20
    assert await records.images.expire_images(30 * DAY) == 0


@pytest_twisted.ensureDeferred
async def test_an_upload_keeps_what_expired_from_being_swept(records: Records) -> None:
    alice = await records.user("alice")
    image = await records.image("alice", "one", expires=days_ago(40))
    await records.store(image, alice, 5)
    await records.run("UPDATE image SET uploaded = %s", days_ago(50))
    blob = await records.begin(image, alice, 6)
    assert await records.images.expire_images(30 * DAY) == 0
    await records.finish(blob, 6)
    assert await records.images.expire_images(30 * DAY) == 0


@pytest_twisted.ensureDeferred
async def test_quota_is_exact_when_many_reserve_at_once(records: Records) -> None:
    alice = await records.user("alice", quota=100)
    images = [await records.image("alice", f"i{n}") for n in range(12)]
    results = await at_once(*(records.begin(image, alice, 30) for image in images))
    assert [type(r) for r in results if not isinstance(r, str)] == [QuotaExceeded] * 9


@pytest_twisted.ensureDeferred
async def test_one_of_many_who_create_an_image_of_a_name_does(records: Records) -> None:
    await records.user("alice")
    results = await at_once(*(records.image("alice", "one") for _ in range(8)))
    assert [type(r) for r in results if isinstance(r, Exception)] == [AlreadyExists] * 7


@pytest_twisted.ensureDeferred
async def test_deleting_an_image_while_its_owner_is_deleted_harms_nothing(
    records: Records,
) -> None:
    for attempt in range(5):
        alice = await records.user(f"alice{attempt}")
        image = await records.store(await records.image(alice.user_name, "one"), alice, 5)
        blob = await records.begin(image, alice, 7)
        results = await at_once(
            records.images.delete(image), records.users.delete(alice), records.finish(blob, 7)
        )
        assert {type(r) for r in results if isinstance(r, Exception)} <= {Conflict}
        assert await records.users.find(alice.user_name) is None
        left = await records.run("SELECT state FROM blob WHERE state <> 'deleting'")
        assert left == []
