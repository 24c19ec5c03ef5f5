"""All records of one database, and what is quickly made in it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from attrs import frozen
from pytest_twisted import blockon
from twisted.internet.defer import Deferred, gatherResults

from repoman.database.accounts import AccountRecords
from repoman.database.blobs import BlobRecords
from repoman.database.groups import GroupRecords
from repoman.database.images import ImageRecords
from repoman.database.offers import OfferRecords
from repoman.database.pool import Pool
from repoman.database.users import UserRecords
from repoman.holders import UploadTerms
from repoman.interfaces import Committed
from repoman.model import Digests, Image, User
from repoman.reach import Reach
from repoman.records import NewImage
from repoman.user_records import NewUser

T = TypeVar("T")

QUOTA = 10**12
"""Of users without one of their own, in bytes."""


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a fixture's coroutine to its end; a test is a coroutine itself."""
    result: T = blockon(Deferred.fromCoroutine(coroutine))
    return result


async def at_once(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines side by side; answer what they return or raise."""
    running = [Deferred.fromCoroutine(one) for one in coroutines]
    for one in running:
        one.addErrback(lambda failure: failure.value)
    return list(await gatherResults(running))


@frozen
class Records:
    """All records of one database."""

    pool: Pool
    accounts: AccountRecords
    users: UserRecords
    groups: GroupRecords
    images: ImageRecords
    blobs: BlobRecords

    @property
    def offers(self) -> OfferRecords:
        """Offers, in the same database."""
        return OfferRecords(self.pool)

    async def run(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        """A statement of the test's own."""
        return await self.pool.interact(lambda t: t.run(sql, params))

    async def user(self, name: str, *groups: str, **fields: Any) -> User:
        """Make a user and read it."""
        await self.users.create(NewUser(name, (f"/C=CA/CN={name}",), groups=groups, **fields))
        return await self.read(name)

    async def read(self, name: str) -> User:
        """A user that exists."""
        user = await self.users.find(name)
        assert user is not None
        return user

    async def found(self, owner: str, name: str) -> Image | None:
        """An image, whoever may see it."""
        return await self.images.find(owner, name, Reach(everything=True))

    async def image(self, owner: str, name: str, *hypervisors: str, **fields: Any) -> Image:
        """Make an image."""
        return await self.images.create(NewImage(owner, name, hypervisors or ("xen",), **fields))

    async def begin(self, image: Image, uploader: User, size: int, hypervisor: str = "xen") -> str:
        """Begin an upload; answer its blob."""
        terms = UploadTerms(size, QUOTA, 100, 600.0)
        return (await self.blobs.begin(image, hypervisor, uploader, terms)).blob

    async def finish(self, blob: str, size: int) -> Image:
        """End an upload."""
        return await self.blobs.finish(blob, Committed(size, Digests(f"{size:064x}"), ""), QUOTA)

    async def store(
        self, image: Image, uploader: User, size: int, hypervisor: str = "xen"
    ) -> Image:
        """Let an image have a file of ``size`` bytes."""
        return await self.finish(await self.begin(image, uploader, size, hypervisor), size)
