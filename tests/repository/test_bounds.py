"""What one user can make grow: images, words, shares, rows of the audit, empty uploads."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from repoman.audit import CUTS, DETAIL_LIMIT, SUBJECT_LIMIT, AuditQuery, Change, bounded
from repoman.database.audit import AuditRecords
from repoman.database.images import ImageRecords
from repoman.errors import AlreadyExists, LimitReached, NotPermitted, TooManyUploads
from repoman.holders import UploadTerms
from repoman.model import KNOWN_HYPERVISORS
from repoman.records import ImageLimits, NewImage
from repoman.repository.audit import HOUR, Audit
from repoman.user_records import NewUser
from tests.records import QUOTA, Records, at_once

DAY = 86400.0


def limited(records: Records, images: int = 9, hypervisors: int = 9, shares: int = 9) -> Any:
    """The same images, held to limits."""
    return ImageRecords(records.pool, ImageLimits(images, hypervisors, shares))


@pytest_twisted.ensureDeferred
async def test_an_owner_has_so_many_images_also_if_many_come_at_once(records: Records) -> None:
    alice, bob = await records.user("alice"), await records.user("bob")
    images = limited(records, images=5)
    made = await at_once(
        *(images.create(NewImage("alice", f"image{n}", ("xen",))) for n in range(12))
    )
    refused = [one for one in made if isinstance(one, Exception)]
    assert len(refused) == 7
    assert {type(error) for error in refused} == {LimitReached}
    assert "5 images" in str(refused[0])
    others = await images.create(NewImage("bob", "one", ("xen",)))
    with pytest.raises(LimitReached, match="alice"):
        await images.change(others, {"owner": "alice"}, QUOTA)
    [first, *_] = [one for one in made if not isinstance(one, Exception)]
    await images.change(first, {"description": "still"}, QUOTA)
    await images.delete(first)
    await images.change(others, {"owner": "alice"}, QUOTA)
    assert (alice.id, bob.id) != (0, 0)


@pytest_twisted.ensureDeferred
async def test_an_owners_images_name_so_many_hypervisors_of_their_own(records: Records) -> None:
    await records.user("alice")
    images = limited(records, hypervisors=3)
    one = await images.create(NewImage("alice", "one", ("a1", "a2", *KNOWN_HYPERVISORS)))
    two = await images.create(NewImage("alice", "two", ("a2", "a3")))
    for way in (
        lambda: images.create(NewImage("alice", "three", ("a4",))),
        lambda: images.change(two, {"hypervisors": ("a2", "a3", "a4")}, QUOTA),
    ):
        with pytest.raises(LimitReached) as refused:
            await way()
        assert refused.value.field == "hypervisor"
    await images.change(one, {"hypervisors": ("a2",)}, QUOTA)
    await images.create(NewImage("alice", "three", ("a4",)))


@pytest_twisted.ensureDeferred
async def test_an_image_is_shared_with_so_many(records: Records) -> None:
    for name in ("alice", "bob", "carol", "dave"):
        await records.user(name)
    images = limited(records, shares=2)
    one = await images.create(NewImage("alice", "one", ("xen",)))
    await images.share(one, user="bob")
    await images.share(one, group="users")
    await images.share(one, group="users")
    for whom in ({"user": "carol"}, {"group": "admins"}):
        with pytest.raises(LimitReached, match="2 users and groups"):
            await images.share(one, **whom)
    await images.unshare(one, user="bob")
    await images.share(one, user="carol")


async def words(records: Records) -> set[str]:
    rows = await records.run("SELECT word FROM word WHERE kind = 'hypervisor'")
    return {word for (word,) in rows} - set(KNOWN_HYPERVISORS)


WAYS = ("delete", "change", "delete the user", "rename and delete")


@pytest.mark.parametrize("way", WAYS)
@pytest_twisted.ensureDeferred
async def test_a_word_is_free_again_when_no_image_names_it(records: Records, way: str) -> None:
    await records.user("alice")
    kept = await records.image("alice", "kept", "first", "xen")
    image = await records.image("alice", "one", "first", "second", "kvm")
    assert await words(records) == {"first", "second"}
    with pytest.raises(AlreadyExists) as refused:
        await records.users.create(NewUser("second", ("/CN=second",)))
    assert "1 of user alice" in refused.value.message
    if way == "delete":
        await records.images.delete(image)
    elif way == "change":
        await records.images.change(image, {"hypervisors": ("kvm",)}, QUOTA)
    elif way == "delete the user":
        await records.images.delete(kept)
        await records.users.delete(await records.read("alice"))
    else:
        await records.users.change(await records.read("alice"), {"user_name": "eve"})
        await records.users.create(NewUser("alice", ("/CN=another",)))
        await records.images.delete(image)
    assert await words(records) == (set() if way == "delete the user" else {"first"})
    await records.user("second")
    assert set(KNOWN_HYPERVISORS) <= {
        word for (word,) in await records.run("SELECT word FROM word WHERE lasting")
    }


@pytest.mark.parametrize("name", ["kvm", "raw", "alice"])
@pytest_twisted.ensureDeferred
async def test_a_word_that_lasts_is_taken_all_the_same(records: Records, name: str) -> None:
    await records.user("alice")
    with pytest.raises(AlreadyExists) as refused:
        await records.users.create(NewUser(name, ("/CN=other",)))
    assert "images" not in refused.value.message


@pytest_twisted.ensureDeferred
async def test_the_last_use_of_a_word_and_a_new_one_do_not_harm_each_other(
    records: Records,
) -> None:
    for name in ("alice", "bob"):
        await records.user(name)
    for turn in range(15):
        old = [await records.image("alice", f"old{turn}-{n}", "b", "a") for n in range(2)]
        done = await at_once(
            *(records.images.delete(image) for image in old),
            records.image("bob", f"new{turn}", "a", "b"),
            records.image("bob", f"other{turn}", "b", "c"),
        )
        assert not [one for one in done if isinstance(one, Exception)]
        for image in done[2:]:
            await records.images.delete(image)
        assert await words(records) == set()


@pytest_twisted.ensureDeferred
async def test_a_refused_user_fills_no_audit(records: Records) -> None:
    alice, bob = await records.user("alice"), await records.user("bob")
    clock, rows = Clock(), AuditRecords(records.pool)
    audit = Audit(rows, DAY, 3, clock.seconds)
    error = NotPermitted("reason " * 100_000, rule="image.delete")

    async def noted() -> list[Any]:
        return await rows.listing(AuditQuery(outcome="refused"))

    for _ in range(10):
        await audit.refused(alice, "image.delete", "x" * 16_000, error)
    assert len(await noted()) == 4
    [last, *others] = await noted()
    assert "not noted" in last.change.detail["more"]
    assert all("more" not in other.change.detail for other in others)
    await audit.refused(bob, "image.delete", "images/y", error)
    assert len(await noted()) == 5
    clock.advance(HOUR)
    await audit.refused(alice, "image.delete", "images/x", error)
    assert len(await noted()) == 6
    sizes = await records.run(
        "SELECT max(octet_length(detail::text)), max(octet_length(subject)) FROM audit"
    )
    assert sizes[0][0] < 2 * DETAIL_LIMIT
    assert sizes[0][1] < SUBJECT_LIMIT + 100
    assert await rows.fault() == ""


@pytest_twisted.ensureDeferred
async def test_a_row_that_was_always_long_stays_whole_and_in_the_chain(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = AuditRecords(records.pool)
    with monkeypatch.context() as before:
        before.setattr("repoman.database.chain.bounded", lambda change: change)
        await rows.add(Change("image.modify", "alice/one", {"description": "d" * 100_000}))
    await rows.add(Change("image.modify", "alice/one", {"description": "d" * 100_000}))
    [cut, whole] = await rows.listing(AuditQuery(action="image.modify"))
    assert len(whole.change.detail["description"]) == 100_000
    assert cut.change.detail["description"].endswith("… and 99000 more characters")
    assert await rows.fault() == ""


details = st.recursive(
    st.text(max_size=30) | st.integers() | st.none() | st.text("aé", min_size=2000, max_size=3000),
    lambda one: st.lists(one, max_size=200) | st.dictionaries(st.text(max_size=9), one, max_size=9),
    max_leaves=30,
)


@settings(max_examples=40, deadline=None)
@given(detail=st.dictionaries(st.sampled_from(["user", "dns", "name"]), details))
def test_a_detail_that_is_short_stays_as_it_is(detail: dict[str, Any]) -> None:
    change = Change("noun.verb", "alice/one", detail)
    cut = bounded(change)
    size = len(json.dumps(change.detail))
    assert (cut == change) is (size <= DETAIL_LIMIT or cut.detail == change.detail)
    assert len(json.dumps(cut.detail)) <= max(DETAIL_LIMIT, size)


def test_many_long_things_are_cut_again() -> None:
    detail = {"dns": ["x" * 2000] * 100, "images": [f"image{n}" for n in range(10_000)]}
    cut = bounded(Change("user.delete", "alice", detail)).detail
    assert len(json.dumps(cut)) <= DETAIL_LIMIT
    assert cut["images"][-1].endswith("more")
    assert CUTS[0][0] > CUTS[-1][0]


async def upload(records: Records, size: int = 100) -> Any:
    alice = await records.user("alice")
    image = await records.image("alice", "one")
    terms = UploadTerms(size, QUOTA, 4, 300.0, 7 * DAY)
    blob = (await records.blobs.begin(image, "xen", alice, terms)).blob
    await records.blobs.pause(blob, 0, terms)
    return alice, image, blob, terms


async def kept_for(records: Records, blob: str) -> timedelta:
    rows = await records.run("SELECT keep_until - now() FROM blob WHERE blob = %s", blob)
    left: timedelta = rows[0][0]
    return left


@pytest_twisted.ensureDeferred
async def test_an_upload_without_bytes_is_short_lived_and_only_bytes_keep_it(
    records: Records,
) -> None:
    alice, _, blob, terms = await upload(records)
    assert await kept_for(records, blob) <= timedelta(hours=1)
    await records.run("UPDATE blob SET created = created - interval '50 min'")
    for _ in range(3):  # empty parts
        await records.blobs.resume(blob, alice, terms, 0)
        await records.blobs.progress({blob: 0}, 7 * DAY)
        await records.blobs.pause(blob, 0, terms)
        assert await kept_for(records, blob) <= timedelta(minutes=10)
    await records.blobs.resume(blob, alice, terms, 0)
    await records.blobs.pause(blob, 10, terms)
    assert await kept_for(records, blob) > timedelta(days=6)
    await records.run("UPDATE blob SET keep_until = now() + interval '2 min'")
    await records.blobs.resume(blob, alice, terms, 10)
    await records.blobs.pause(blob, 10, terms)
    assert await kept_for(records, blob) <= timedelta(minutes=2)
    await records.blobs.resume(blob, alice, terms, 10)
    await records.blobs.progress({blob: 20}, 7 * DAY)  # and then it is killed
    assert await kept_for(records, blob) > timedelta(days=6)


@pytest_twisted.ensureDeferred
async def test_a_user_keeps_so_many_uploads(records: Records) -> None:
    alice, image, _, terms = await upload(records, 0)
    for _ in range(99):
        blob = (await records.blobs.begin(image, "xen", alice, terms)).blob
        await records.blobs.pause(blob, 0, terms)
    with pytest.raises(TooManyUploads) as refused:
        await records.blobs.begin(image, "xen", alice, terms)
    assert refused.value.retry_after is None  # none of them ends by itself


@pytest_twisted.ensureDeferred
async def test_when_to_come_again_is_said_where_waiting_helps(records: Records) -> None:
    alice, image, blob, terms = await upload(records, 10)
    for _ in range(4):
        await records.blobs.begin(image, "xen", alice, terms)
    with pytest.raises(TooManyUploads) as refused:
        await records.blobs.begin(image, "xen", alice, terms)
    assert refused.value.retry_after
    with pytest.raises(TooManyUploads) as refused:
        await records.blobs.resume(blob, alice, terms, 0)
    assert refused.value.retry_after


@pytest_twisted.ensureDeferred
async def test_an_upload_that_has_all_its_bytes_ends_beside_as_many_as_may_run(
    records: Records,
) -> None:
    alice, image, blob, terms = await upload(records, 10)
    await records.blobs.resume(blob, alice, terms, 0)
    await records.blobs.pause(blob, 10, terms)
    for _ in range(4):
        await records.blobs.begin(image, "xen", alice, terms)
    assert (await records.blobs.resume(blob, alice, terms, 10)).room == 0
