"""The repository, put together from its parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from socket import gethostname
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen
from twisted.internet.task import deferLater

from repoman.config import Config
from repoman.database.accounts import AccountRecords
from repoman.database.audit import AuditRecords
from repoman.database.blobs import BlobRecords
from repoman.database.daemons import Daemons
from repoman.database.groups import GroupRecords
from repoman.database.images import ImageRecords
from repoman.database.offers import OfferRecords
from repoman.database.pool import Pool
from repoman.database.users import UserRecords
from repoman.interfaces import Clock, IConsuming
from repoman.records import ImageLimits
from repoman.repository import Repository
from repoman.repository.accounts import Accounts
from repoman.repository.audit import Audit
from repoman.repository.files import Files, UploadLimits
from repoman.repository.groups import Groups
from repoman.repository.images import Images
from repoman.repository.offers import Offers
from repoman.repository.scrubber import Scrubber
from repoman.repository.sweeper import Sweeper
from repoman.repository.transfers import Transfers
from repoman.repository.uploads import Uploads
from repoman.repository.users import Users
from repoman.storage.directory import DirectoryStore
from repoman.storage.s3.access import read_access
from repoman.streams import Digesting
from repoman.transfers import Transfer

if TYPE_CHECKING:
    from repoman.storage.s3.arriving import IMultipartRecords
    from repoman.storage.s3.store import S3Store

Store: TypeAlias = "DirectoryStore | S3Store"
"""A place for bytes that the configuration can name."""


@frozen
class Assembly:
    """A repository, and who looks after its bytes.

    :ivar bounds: of uploads.
    :ivar daemons: all that serve this repository.
    """

    repository: Repository
    sweeper: Sweeper
    scrubber: Scrubber
    store: Store
    bounds: UploadLimits
    daemons: Daemons


def check_store(config: Config) -> None:
    """Look at what the store needs before it can be started.

    :raises Misconfigured: credentials are missing, or others may read them.
    :raises TrustUnreadable: so are CAs.
    """
    if config.storage.backend == "s3":
        read_access(config.storage, os.environ)


async def make_store(
    reactor: Any,
    config: Config,
    blobs: BlobRecords,
    multiparts: IMultipartRecords | None = None,
    *,
    is_new: bool = False,
) -> Store:
    """The store that the configuration names, not yet started.

    :param multiparts: where it notes its multipart uploads; by default, in ``blobs``.
    :param is_new: it may be empty, although there are files.
    """
    repository_id = await blobs.repository_id()
    may_create = is_new or not await blobs.any_present()
    if config.storage.backend == "s3":
        # Only where it is wanted: what signs is large.
        from repoman.storage.s3.store import S3Store

        return S3Store(
            reactor,
            config.storage,
            read_access(config.storage, os.environ),
            multiparts or blobs,
            repository_id=repository_id,
            may_create=may_create,
        )
    return DirectoryStore(
        reactor,
        config.storage.directory,
        repository_id=repository_id,
        reserve=config.limits.disk_reserve.of,
        may_create=may_create,
    )


def assemble(
    config: Config,
    pool: Pool,
    store: Store,
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
    limits, blobs = config.limits, BlobRecords(pool, holder)
    counts = ImageLimits(limits.images, limits.hypervisors, limits.shares)
    records = ImageRecords(pool, counts)
    daemons = Daemons(pool, blobs.holder, gethostname())
    users, bounds = UserRecords(pool), UploadLimits(0, 0, 0, 0.0)
    images = Images(records, limits.quota, discarded, counts)
    files = Files(
        images, blobs, store, digesting, bounds, clock, partial(deferLater, pool.clock),
        discarded, config.storage.redirect,
    )  # fmt: skip
    repository = Repository(
        make_accounts(config, pool),
        Users(users),
        Groups(GroupRecords(pool), users),
        images,
        files,
        Uploads(images, blobs, store, digesting, bounds, discarded),
        Audit(AuditRecords(pool), 0.0, limits.refusals, pool.clock.seconds),
        Transfers(running, daemons.elsewhere),
        Offers(images, OfferRecords(pool, counts)),
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
    bounds.longest = float(limits.upload_time)
    images = assembly.repository.images
    images.quota, counts = limits.quota, images.limits
    counts.images, counts.hypervisors = limits.images, limits.hypervisors
    counts.shares, assembly.repository.audit.refusals = limits.shares, limits.refusals
    assembly.sweeper.expired_kept = float(limits.expired_kept)
    if isinstance(assembly.store, DirectoryStore):
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
