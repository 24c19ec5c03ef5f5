"""The repository, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import frozen

from repoman.config import Config, Limits
from repoman.database.accounts import AccountRecords
from repoman.database.audit import AuditRecords
from repoman.database.blobs import BlobRecords
from repoman.database.groups import GroupRecords
from repoman.database.images import ImageRecords
from repoman.database.pool import Pool
from repoman.database.users import UserRecords
from repoman.interfaces import Clock, IBlobStore, IConsuming
from repoman.repository import Repository
from repoman.repository.accounts import Accounts
from repoman.repository.audit import Audit
from repoman.repository.files import Files, UploadLimits
from repoman.repository.groups import Groups
from repoman.repository.images import Images
from repoman.repository.scrubber import Scrubber
from repoman.repository.sweeper import Sweeper
from repoman.repository.transfers import Transfers
from repoman.repository.uploads import Uploads
from repoman.repository.users import Users
from repoman.settings import Share
from repoman.storage.directory import DirectoryStore
from repoman.streams import Digesting
from repoman.transfers import Transfer


@frozen
class Assembly:
    """A repository, and who looks after its bytes."""

    repository: Repository
    sweeper: Sweeper
    scrubber: Scrubber


async def make_store(reactor: Any, config: Config, blobs: BlobRecords) -> DirectoryStore:
    """The store that the configuration names, not yet started."""
    reserve = config.limits.disk_reserve
    return DirectoryStore(
        reactor,
        config.storage.directory,
        repository_id=await blobs.repository_id(),
        reserve=reserve.percent / 100 if isinstance(reserve, Share) else reserve.size,
        may_create=not await blobs.any_present(),
    )


def assemble(
    config: Config,
    pool: Pool,
    store: IBlobStore,
    clock: Clock,
    discarded: Callable[[], object],
    running: Callable[[], Iterable[Transfer]],
) -> Assembly:
    """Put a repository together.

    :param discarded: called when there is work for the sweeper.
    :param running: answers which transfers run.
    """
    limits, blobs, records = config.limits, BlobRecords(pool), ImageRecords(pool)
    users, bounds = UserRecords(pool), upload_limits(config.limits)
    images = Images(records, limits.quota, discarded)
    return Assembly(
        Repository(
            make_accounts(config, pool),
            Users(users),
            Groups(GroupRecords(pool), users),
            images,
            Files(images, blobs, store, _digesting, bounds, clock, discarded),
            Uploads(images, blobs, store, _digesting, bounds, discarded),
            Audit(AuditRecords(pool)),
            Transfers(running),
        ),
        Sweeper(records, blobs, store, float(limits.expired_kept)),
        Scrubber(blobs, store),
    )


def make_accounts(config: Config, pool: Pool) -> Accounts:
    """Who logs in as whom."""
    return Accounts(AccountRecords(pool), config.tls.limited_proxies)


def upload_limits(limits: Limits) -> UploadLimits:
    """What every upload is bound to."""
    return UploadLimits(
        limits.max_upload, limits.quota, limits.uploads, float(limits.partial_uploads)
    )


def _digesting(
    consumer: IConsuming, limit: int, names: Iterable[str], start: int, previous: Digesting | None
) -> Digesting:
    return Digesting(consumer, limit=limit, algorithms=names, start=start, previous=previous)
