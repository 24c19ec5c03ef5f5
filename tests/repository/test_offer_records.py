"""Offers in the database: one transaction each, and whoever comes at the same moment."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from repoman.errors import AlreadyExists, Conflict, Invalid, Missing, Protected, QuotaExceeded
from repoman.model import MOST_OFFERS, MOST_OFFERS_TO_ONE, OFFER_SECONDS, Image, Offer, User
from tests.ledger import WRONG_QUOTAS
from tests.records import QUOTA, Records, at_once

ROUNDS = 8
"""How often rivals meet: which of them is first differs."""


async def offered(records: Records, image: Image, recipient: User) -> Offer:
    await records.offers.make(image, recipient.user_name)
    offer = await records.offers.find(recipient, image.owner, image.name)
    assert offer is not None
    return offer


async def accept(records: Records, offer: Offer, recipient: User, **how: Any) -> Image:
    name, version = how.get("name", offer.image.name), how.get("version")
    return await records.offers.accept(offer, recipient, QUOTA, name, version)


async def two(records: Records, **fields: Any) -> tuple[User, User]:
    return await records.user("alice"), await records.user("bob", **fields)


@pytest_twisted.ensureDeferred
async def test_acceptance_moves_the_quota_and_ends_what_the_giver_shared(records: Records) -> None:
    alice, bob = await two(records)
    await records.user("carol")
    group = await records.groups.find("users")
    assert group is not None
    image = await records.image("alice", "one", unauthenticated_access=True)
    image = await records.store(image, alice, 5)
    for whom in ({"user": "alice"}, {"user": "carol"}, {"group": "users"}):
        await records.images.share(image, **whom)
    before = await records.found("alice", "one")
    offer = await offered(records, image, bob)
    assert await records.found("alice", "one") == before
    after = await accept(records, offer, bob)
    assert (after.owner, after.files, after.uuid) == ("bob", image.files, image.uuid)
    assert (after.shared_users, after.shared_groups) == ((), ())
    assert after.unauthenticated_access is False
    assert after.modified > image.modified
    assert [(await records.read(name)).used for name in ("alice", "bob")] == [0, 5]
    assert await records.run(WRONG_QUOTAS) == []
    assert await records.offers.listing(bob, 999) == await records.offers.listing(alice, 999) == []


@pytest_twisted.ensureDeferred
async def test_a_gift_at_once_ends_shares_public_access_and_an_offer(records: Records) -> None:
    alice, bob = await two(records)
    image = await records.image("alice", "one")
    image = await records.store(image, alice, 5)
    await records.images.share(image, user="bob")
    await records.user("carol")
    await offered(records, image, bob)
    # Whatever else the same change says.
    changes = {"owner": "carol", "name": "two", "unauthenticated_access": True}
    after = await records.images.change(image, changes, QUOTA)
    assert (after.path, after.shared_users, after.unauthenticated_access) == (
        "carol/two", (), False,
    )  # fmt: skip
    assert await records.offers.listing(bob, 999) == []
    assert await records.run(WRONG_QUOTAS) == []


@pytest_twisted.ensureDeferred
async def test_a_damaged_file_counts_on_the_new_owner(records: Records) -> None:
    alice, bob = await two(records)
    image = await records.store(await records.image("alice", "one"), alice, 5)
    await records.run("UPDATE blob SET state = 'damaged'")
    await accept(records, await offered(records, image, bob), bob)
    assert await records.run(WRONG_QUOTAS) == []


@pytest_twisted.ensureDeferred
async def test_the_new_name_has_to_be_free_under_the_new_owner_only(records: Records) -> None:
    _, bob = await two(records)
    for owner, name in (("alice", "one"), ("alice", "two"), ("bob", "one")):
        await records.image(owner, name)
    image = await records.found("alice", "one")
    assert image is not None
    offer = await offered(records, image, bob)
    with pytest.raises(AlreadyExists):
        await accept(records, offer, bob)
    # "two" is the giver's other image's name: none of the recipient's business.
    assert (await accept(records, offer, bob, name="two")).path == "bob/two"
    assert await records.found("alice", "two") is not None
    given = await records.images.change(
        await records.image("alice", "three"), {"owner": "bob", "name": "four"}, QUOTA
    )
    assert given.path == "bob/four"


@pytest_twisted.ensureDeferred
async def test_who_accepts_needs_room_and_who_offers_does_not_learn_of_it(
    records: Records,
) -> None:
    alice, bob = await two(records, quota=4)
    image = await records.store(await records.image("alice", "one"), alice, 5)
    offer = await offered(records, image, bob)
    assert offer.size == 5
    with pytest.raises(QuotaExceeded):
        await accept(records, offer, bob)
    assert await records.offers.listing(alice, 999) == [offer]
    assert [(await records.read(name)).used for name in ("alice", "bob")] == [5, 0]


@pytest_twisted.ensureDeferred
async def test_an_offer_does_not_outlive_what_it_stands_on(records: Records) -> None:
    _, bob = await two(records)
    carol = await records.user("carol")

    async def nothing(image: Image, offer: Offer) -> None:
        return None

    async def given(image: Image, offer: Offer) -> None:
        await records.images.change(image, {"owner": "carol"}, QUOTA)

    async def given_and_back(image: Image, offer: Offer) -> None:
        there = await records.images.change(image, {"owner": "carol"}, QUOTA)
        await records.images.change(there, {"owner": "alice"}, QUOTA)

    async def withdrawn_by_owner(image: Image, offer: Offer) -> None:
        await records.images.change(image, {"recipient": "alice"}, QUOTA)

    async def ended(image: Image, offer: Offer) -> None:
        await records.offers.end(offer, "image.withdraw")

    async def offered_to_another(image: Image, offer: Offer) -> None:
        await records.offers.make(image, "carol")

    async def over(image: Image, offer: Offer) -> None:
        await records.run("UPDATE offer SET made = now() - %s * interval '1 s'", OFFER_SECONDS)

    async def giver_suspended(image: Image, offer: Offer) -> None:
        await records.run("UPDATE account SET suspended = true WHERE user_name = 'alice'")

    async def recipient_suspended(image: Image, offer: Offer) -> None:
        await records.run("UPDATE account SET suspended = true WHERE user_name = 'bob'")

    async def deleted(image: Image, offer: Offer) -> None:
        await records.images.delete(image)

    cases = (
        given, given_and_back, withdrawn_by_owner, ended, offered_to_another, over, deleted,
        giver_suspended, recipient_suspended,
    )  # fmt: skip
    for number, happens in enumerate((nothing, *cases)):
        image = await records.image("alice", f"i{number}")
        offer = await offered(records, image, bob)
        await happens(image, offer)
        if happens is nothing:
            await accept(records, offer, bob)
        else:
            with pytest.raises(Missing):
                await accept(records, offer, bob)
            if happens is not recipient_suspended:
                assert await records.offers.find(bob, "alice", image.name) is None, happens
        await records.run("UPDATE account SET suspended = false")
        await records.run("DELETE FROM offer")
    assert len(await records.run("SELECT 1 FROM image WHERE owner_id = %s", bob.id)) == 1
    assert await records.offers.listing(carol, 999) == []


@pytest_twisted.ensureDeferred
async def test_an_offer_goes_with_the_giver_and_with_the_recipient(records: Records) -> None:
    alice, _ = await two(records)
    for owner, recipient in (("alice", "bob"), ("bob", "alice")):
        await records.offers.make(await records.image(owner, "one"), recipient)
    await records.users.delete(alice)
    assert await records.run("SELECT 1 FROM offer") == []
    assert await records.found("bob", "one") is not None


@pytest_twisted.ensureDeferred
async def test_what_has_other_files_by_now_is_not_what_was_accepted(records: Records) -> None:
    alice, bob = await two(records)
    image = await records.store(await records.image("alice", "one"), alice, 5)
    offer = await offered(records, image, bob)
    await records.store(image, alice, 7)
    with pytest.raises(Conflict, match="version 1, and is 2"):
        await accept(records, offer, bob, version=1)
    assert (await accept(records, offer, bob, version=2)).owner == "bob"


@pytest_twisted.ensureDeferred
async def test_what_has_become_read_only_stays_where_it_is(records: Records) -> None:
    _, bob = await two(records)
    image = await records.image("alice", "one")
    offer = await offered(records, image, bob)
    await records.images.change(image, {"read_only": True}, QUOTA)
    with pytest.raises(Protected, match="its owner has to end that"):
        await accept(records, offer, bob)


async def many_offers(records: Records, giver: User, recipient: User, count: int) -> None:
    """Offers as if made one after the other."""
    await records.run(
        """
        WITH made AS (INSERT INTO image (owner_id, name)
            SELECT %s, %s || n FROM generate_series(1, %s) AS n RETURNING image_id)
        INSERT INTO offer SELECT image_id, %s FROM made
        """,
        giver.id, recipient.user_name, count, recipient.id,
    )  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_nobody_fills_a_list_with_offers(records: Records) -> None:
    alice, bob = await two(records)
    await many_offers(records, alice, bob, MOST_OFFERS_TO_ONE - 2)
    images = [await records.image("alice", f"i{n}") for n in range(5)]
    results = await at_once(*(records.offers.make(image, "bob") for image in images))
    assert [type(r) for r in results if r is not None] == [Conflict] * 3
    # What is offered already may be offered anew, and what has ended makes room.
    made = images[results.index(None)]
    left = next(image for image, r in zip(images, results, strict=True) if r is not None)
    await records.offers.make(made, "bob")
    assert len(await records.offers.listing(bob, 999)) == MOST_OFFERS_TO_ONE
    await records.run("UPDATE offer SET made = now() - %s * interval '1 s'", OFFER_SECONDS)
    await records.offers.make(left, "bob")
    assert [offer.image.name for offer in await records.offers.listing(bob, 999)] == [left.name]


@pytest_twisted.ensureDeferred
async def test_the_whole_number_of_offers_is_bounded_too(records: Records) -> None:
    alice, bob = await two(records)
    for number in range(MOST_OFFERS // MOST_OFFERS_TO_ONE):
        friend = await records.user(f"friend{number}")
        await many_offers(records, alice, friend, MOST_OFFERS_TO_ONE)
    with pytest.raises(Conflict, match=f"offers {MOST_OFFERS} images already"):
        await records.offers.make(await records.image("alice", "one"), bob.user_name)


@pytest_twisted.ensureDeferred
async def test_there_is_nobody_of_that_name_to_offer_to(records: Records) -> None:
    await records.user("alice")
    image = await records.image("alice", "one")
    with pytest.raises(Invalid, match="no user nobody"):
        await records.offers.make(image, "nobody")


@pytest.mark.parametrize("at_once", [False, True])
@pytest_twisted.ensureDeferred
async def test_what_the_giver_was_about_to_do_is_refused(records: Records, at_once: bool) -> None:
    _, bob = await two(records)
    await records.user("carol")
    seen = await records.image("alice", "one")
    await records.images.share(seen, user="carol")
    if at_once:
        after = await records.images.change(seen, {"owner": "bob"}, QUOTA)
    else:
        after = await accept(records, await offered(records, seen, bob), bob)
    for late in (
        records.images.share(seen, user="alice"),
        records.images.share(seen, group="users"),
        records.images.unshare(seen, user="carol"),
        records.images.change(seen, {"unauthenticated_access": True}, QUOTA),
        records.images.change(seen, {"name": "mine"}, QUOTA),
        records.images.change(seen, {"owner": "carol"}, QUOTA),
        records.images.change(seen, {"recipient": "carol"}, QUOTA),
        records.images.delete(seen),
        records.offers.make(seen, "carol"),
    ):
        with pytest.raises(Missing):
            await late
    assert await records.found("bob", "one") == after


async def rival_delete(records: Records, image: Image, offer: Offer) -> Any:
    return await records.images.delete(image)


async def rival_withdraw(records: Records, image: Image, offer: Offer) -> Any:
    return await records.offers.end(offer, "image.withdraw")


async def rival_rename(records: Records, image: Image, offer: Offer) -> Any:
    return await records.images.change(image, {"name": f"new-{image.name}"}, QUOTA)


async def rival_publish(records: Records, image: Image, offer: Offer) -> Any:
    return await records.images.change(image, {"unauthenticated_access": True}, QUOTA)


async def rival_share(records: Records, image: Image, offer: Offer) -> Any:
    return await records.images.share(image, user="alice")


async def rival_gift(records: Records, image: Image, offer: Offer) -> Any:
    return await records.images.change(image, {"owner": "carol"}, QUOTA)


async def rival_offer(records: Records, image: Image, offer: Offer) -> Any:
    return await records.offers.make(image, "carol")


async def rival_upload(records: Records, image: Image, offer: Offer) -> Any:
    return await records.store(image, await records.read("alice"), 9)


async def rival_acceptance(records: Records, image: Image, offer: Offer) -> Any:
    return await accept(records, offer, await records.read("bob"))


RIVALS = (
    rival_delete, rival_withdraw, rival_rename, rival_publish, rival_share, rival_gift,
    rival_offer, rival_upload, rival_acceptance,
)  # fmt: skip


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.__name__)
@pytest_twisted.ensureDeferred
async def test_an_acceptance_and_a_rival_end_as_one_after_the_other(
    records: Records, rival: Any
) -> None:
    alice, bob = await two(records)
    await records.user("carol")
    for number in range(ROUNDS):
        image = await records.store(await records.image("alice", f"i{number}"), alice, 5)
        offer = await offered(records, image, bob)
        both = [accept(records, offer, bob), rival(records, image, offer)]
        results = await at_once(*(both if number % 2 else reversed(both)))
        taken, other = results if number % 2 else reversed(results)
        failed = [r for r in (taken, other) if isinstance(r, Exception)]
        assert {type(r) for r in failed} <= {Missing, Conflict}, failed
        [(owner, public, shares)] = await records.run(
            """
            SELECT user_name, unauthenticated_access, (SELECT count(*)
                FROM image_shared_with_user s WHERE s.image_id = i.image_id)
              FROM image i JOIN account ON account_id = owner_id WHERE image_id = %s
            """,
            image.id,
        ) or [("", False, 0)]  # fmt: skip
        if isinstance(taken, Image):
            # Nothing of the giver's comes after it.
            assert (owner, public, shares) == ("bob", False, 0), (rival, other)
        elif rival is not rival_acceptance:
            assert owner == {"rival_delete": "", "rival_gift": "carol"}.get(
                rival.__name__, "alice"
            ), taken
        if rival in (rival_delete, rival_withdraw, rival_gift, rival_acceptance, rival_offer):
            assert not (isinstance(taken, Image) and isinstance(other, Image))
        assert await records.run("SELECT 1 FROM offer JOIN account ON account_id = recipient_id"
                                 " WHERE user_name = 'bob'") == []  # fmt: skip
    assert await records.run(WRONG_QUOTAS) == []


@pytest_twisted.ensureDeferred
async def test_gifts_in_both_directions_at_once_all_arrive(records: Records) -> None:
    alice, bob = await two(records)
    offers = []
    for number in range(ROUNDS):
        for giver, taker in ((alice, bob), (bob, alice)):
            made = await records.image(giver.user_name, f"{giver.user_name}{number}")
            image = await records.store(made, giver, 5 + number)
            offers.append((await offered(records, image, taker), taker))
    await at_once(*(accept(records, offer, taker) for offer, taker in offers))
    rows = await records.run("SELECT name FROM image WHERE owner_id = %s", alice.id)
    assert sorted(name for (name,) in rows) == [f"bob{number}" for number in range(ROUNDS)]
    assert await records.run(WRONG_QUOTAS) == []


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest_twisted.ensureDeferred
async def test_an_acceptance_while_one_of_the_two_is_deleted_harms_nothing(
    records: Records, who: str
) -> None:
    for number in range(ROUNDS):
        alice, bob = await records.user(f"alice{number}"), await records.user(f"bob{number}")
        image = await records.store(await records.image(alice.user_name, "one"), alice, 5)
        offer = await offered(records, image, bob)
        gone = alice if who == "alice" else bob
        taken, deleted = await at_once(accept(records, offer, bob), records.users.delete(gone))
        assert deleted is None
        assert isinstance(taken, Image | Missing | Invalid), taken
        assert await records.users.find(gone.user_name) is None
    assert await records.run("SELECT 1 FROM offer") == []
    assert await records.run(WRONG_QUOTAS) == []


@pytest_twisted.ensureDeferred
async def test_an_upload_that_begins_while_the_image_changes_hands_is_fenced(
    records: Records,
) -> None:
    alice, bob = await two(records)
    for number in range(ROUNDS):
        image = await records.image("alice", f"i{number}")
        offer = await offered(records, image, bob)
        begun, taken = await at_once(records.begin(image, alice, 9), accept(records, offer, bob))
        assert isinstance(taken, Image), taken
        if isinstance(begun, str):
            with pytest.raises(Conflict):
                await records.finish(begun, 9)
        else:
            assert isinstance(begun, Missing)
    assert await records.run("SELECT sum(reserved) FROM account") == [(0,)]
    assert await records.run(WRONG_QUOTAS) == []
