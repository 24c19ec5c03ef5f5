"""The repository, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from socket import gethostname
from typing import Any

from attrs import frozen

from repoman.config import Config
from repoman.database.accounts import AccountRecords
from repoman.database.audit import AuditRecords
from repoman.database.blobs import BlobRecords
from repoman.database.daemons import Daemons
from repoman.database.groups import GroupRecords
from repoman.database.images import ImageRecords
from repoman.database.pool import Pool
from repoman.database.users import UserRecords
from repoman.interfaces import Clock, IConsuming
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
from repoman.storage.directory import DirectoryStore
from repoman.streams import Digesting
from repoman.transfers import Transfer


@frozen
class Assembly:
    """A repository, and who looks after its bytes.

    :ivar bounds: of uploads.
    :ivar daemons: all that serve this repository.
    """

    repository: Repository
    sweeper: Sweeper
    scrubber: Scrubber
    store: DirectoryStore
    bounds: UploadLimits
    daemons: Daemons


async def make_store(
    reactor: Any, config: Config, blobs: BlobRecords, *, is_new: bool = False
) -> DirectoryStore:
    """The store that the configuration names, not yet started.

    :param is_new: it may be empty, although there are files.
    """
    return DirectoryStore(
        reactor,
        config.storage.directory,
        repository_id=await blobs.repository_id(),
        reserve=config.limits.disk_reserve.of,
        may_create=is_new or not await blobs.any_present(),
    )


def assemble(
    config: Config,
    pool: Pool,
    store: DirectoryStore,
    clock: Clock,
    discarded: Callable[[], object],
    running: Callable[[], Iterable[Transfer]],
    holder: str = "",
) -> Assembly:
    """Put a repository together.

    :param discarded: called when there is work for the sweeper.
    :param running: answers which transfers run.
    :param holder: the name of this process, if somebody must know it.
    """
    limits, blobs, records = config.limits, BlobRecords(pool, holder), ImageRecords(pool)
    daemons = Daemons(pool, blobs.holder, gethostname())
    users, bounds = UserRecords(pool), UploadLimits(0, 0, 0, 0.0)
    images = Images(records, limits.quota, discarded)
    repository = Repository(
        make_accounts(config, pool),
        Users(users),
        Groups(GroupRecords(pool), users),
        images,
        Files(images, blobs, store, digesting, bounds, clock, discarded, config.storage.redirect),
        Uploads(images, blobs, store, digesting, bounds, discarded),
        Audit(AuditRecords(pool), 0.0),
        Transfers(running, daemons.elsewhere),
    )
    sweeper = Sweeper(records, blobs, store, 0.0, repository.renew_leases)
    assembly = Assembly(repository, sweeper, Scrubber(blobs, store), store, bounds, daemons)
    apply_limits(assembly, config)
    return assembly


def apply_limits(assembly: Assembly, config: Config) -> None:
    """Let ``[limits]`` and ``audit_kept`` be those of ``config`` from now on."""
    limits, bounds = config.limits, assembly.bounds
    bounds.max_upload, bounds.quota = limits.max_upload, limits.quota
    bounds.uploads, bounds.keep = limits.uploads, float(limits.partial_uploads)
    assembly.repository.images.quota = limits.quota
    assembly.sweeper.expired_kept = float(limits.expired_kept)
    assembly.store.reserve = limits.disk_reserve.of
    assembly.repository.audit.kept = float(config.log.audit_kept)


def make_accounts(config: Config, pool: Pool) -> Accounts:
    """Who logs in as whom."""
    return Accounts(AccountRecords(pool), config.tls.limited_proxies)


def digesting(
    consumer: IConsuming, limit: int, names: Iterable[str], start: int, previous: Digesting | None
) -> Digesting:
    """The :data:`~repoman.repository.files.Digester` of what comes in or goes over."""
    return Digesting(consumer, limit=limit, algorithms=names, start=start, previous=previous)
