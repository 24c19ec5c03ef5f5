"""Transactions of all kinds at once wait for one another, and never in a circle."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_twisted

from repoman.errors import DatabaseUnavailable, RepomanError
from repoman.model import Image, User
from tests.records import QUOTA, Records, at_once
from tests.repository.conftest import records_of

NAMES, WORDS = ("one", "two", "three"), ("xen", "kvm", "red", "green", "blue")
LINKS, EACH = 16, 20


@pytest.fixture
def records(template: str) -> Iterator[Records]:
    """With as many connections as there are who use them."""
    with records_of(template, size=LINKS, wait=30.0) as made:
        yield made


class Deeds:
    """What people do to some users and images, of which nobody knows whether they are still there.

    :param root: an administrator.
    """

    def __init__(self, records: Records, root: User, chance: random.Random) -> None:
        self._records, self._root, self._chance = records, root, chance

    async def _user(self) -> User:
        sql = "SELECT user_name FROM account WHERE user_name <> 'root' ORDER BY random() LIMIT 1"
        rows = await self._records.run(sql)
        user = await self._records.users.find(rows[0][0]) if rows else None
        return user or self._root

    async def _image(self) -> Image:
        rows = await self._records.run(
            "SELECT user_name, name FROM image JOIN account ON account_id = owner_id"
            " ORDER BY random() LIMIT 1"
        )
        found = await self._records.found(*rows[0]) if rows else None
        return found or await self._records.image("root", self._name())

    def _name(self) -> str:
        return self._chance.choice(NAMES)

    def _words(self) -> tuple[str, ...]:
        return tuple(self._chance.sample(WORDS, self._chance.randint(1, 3)))

    async def create(self) -> None:
        owner = await self._user()
        await self._records.image(owner.user_name, self._name(), *self._words())

    async def upload(self) -> None:
        image = await self._image()
        owner = await self._records.users.find(image.owner)
        uploader = self._chance.choice([self._root, owner or self._root])
        hypervisor = self._chance.choice(image.hypervisors)
        await self._records.store(image, uploader, 5, hypervisor)

    async def give_up_an_upload(self) -> None:
        image = await self._image()
        blob = await self._records.begin(image, self._root, 5, image.hypervisors[0])
        await self._records.blobs.release(blob)

    async def change(self) -> None:
        fields: dict[str, Any] = {
            "name": self._name(), "hypervisors": self._words(),
            "owner": (await self._user()).user_name,
        }  # fmt: skip
        some = self._chance.sample(sorted(fields), self._chance.randint(1, 2))
        changes = {name: fields[name] for name in some}
        await self._records.images.change(await self._image(), changes, QUOTA)

    async def delete(self) -> None:
        await self._records.images.delete(await self._image())

    async def expire(self) -> None:
        await self._records.images.change(await self._image(), {"expires": "2001-01-01"}, QUOTA)
        await self._records.images.expire_images(0)

    async def share(self) -> None:
        await self._records.images.share(await self._image(), user=(await self._user()).user_name)

    async def accept_an_offer(self) -> None:
        image, recipient = await self._image(), await self._user()
        await self._records.offers.make(image, recipient.user_name)
        offer = await self._records.offers.find(self._root, image.owner, image.name)
        if offer is not None:
            await self._records.offers.accept(offer, recipient, QUOTA, self._name(), None)

    async def replace_a_user(self) -> None:
        user = await self._user()
        if user is not self._root:
            await self._records.users.delete(user)
            await self._records.user(user.user_name)

    async def rename_a_user(self) -> None:
        user = await self._user()
        if user is not self._root:
            name = f"u{self._chance.randint(0, 9)}"
            await self._records.users.change(user, {"user_name": name})


@pytest_twisted.ensureDeferred
async def test_nobody_waits_for_who_waits_for_them(records: Records) -> None:
    chance = random.Random(15)
    deeds = Deeds(records, await records.user("root", "admins"), chance)
    for number in range(5):
        await records.user(f"u{number}")
    kinds: list[Callable[[], Awaitable[None]]] = [
        getattr(deeds, name) for name in vars(Deeds) if not name.startswith("_")
    ]

    async def act() -> None:
        for _ in range(EACH):
            try:
                await chance.choice([*kinds, deeds.create, deeds.upload])()
            except DatabaseUnavailable:
                raise
            except RepomanError:
                pass  # somebody was faster

    assert set(await at_once(*[act() for _ in range(LINKS)])) == {None}
    [(deadlocks,)] = await records.run(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == 0
    off = "SELECT FROM account WHERE used <> (SELECT coalesce(sum(size), 0) FROM blob"
    assert not await records.run(off + " WHERE payer_id = account_id AND state = 'present')")
