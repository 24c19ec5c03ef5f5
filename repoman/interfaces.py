"""The seams: what the application asks of the adapters.

Each protocol has one contract suite in ``tests/contracts``, run on every
implementation.  Coroutines are awaited on the reactor; none may block it.
Records of images, users and groups are in :mod:`repoman.records`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from attrs import frozen

from repoman.holders import IHolders, UploadTerms
from repoman.model import Digests, Image, ImageFile, Upload, User

Clock = Callable[[], datetime]
"""Answers the time: aware, UTC."""


class IConsuming(Protocol):
    """The part of :class:`twisted.internet.interfaces.IConsumer` that flows use.

    ``write`` may raise a :class:`~repoman.errors.RepomanError`: the flow then
    ends with that error.
    """

    def write(self, data: bytes) -> None:
        """Take some bytes."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let ``producer`` be paused and resumed."""

    def unregisterProducer(self) -> None:
        """The producer has no more bytes."""


class IBody(Protocol):
    """Bytes on their way in, still at the peer.

    :ivar length: announced, in bytes; ``None`` if the peer did not say.
    """

    @property
    def length(self) -> int | None:
        """The announced length in bytes."""

    async def deliver_to(self, consumer: IConsuming) -> int:
        """Let the bytes flow, at the consumer's pace; answer how many came.

        May be called once.  Not one byte is read from the peer before.

        :raises ClientGone: the peer left before the end.
        :raises Invalid: the peer broke the framing.
        """

    def interrupt(self) -> None:
        """End the flow, if one runs, as if the peer had gone."""

    async def read(self, limit: int) -> bytes:
        """All bytes of a small body.

        :param limit: in bytes.
        :raises TooLarge: there are more than ``limit``.
        """


class IBlobWriter(IConsuming, Protocol):
    """A blob in the making: invisible before :meth:`commit`.

    ``write`` raises NoRoom when the store is full and StoreUnavailable when
    it cannot write.  It pauses its producer while too many bytes are not yet
    durable.
    """

    @property
    def key(self) -> str:
        """The key under which the blob will be found."""

    @property
    def durable(self) -> int:
        """How many bytes survive a power cut by now."""

    async def keep(self) -> int:
        """Stop for now: make every byte durable, not the blob; answer how many there are.

        A later :meth:`IBlobStore.reopen` goes on there.

        :raises StoreUnavailable: go on from the last known offset.
        """

    async def commit(self) -> str:
        """Make every byte written, and the name, survive a power cut; answer the blob's stamp.

        :raises StoreUnavailable: no more is known to be durable than before; the
            blob must be discarded, or reopened where its durable bytes end.
        :raises NoRoom: the same, for want of room.
        """

    async def discard(self) -> None:
        """Forget the bytes.  Harmless after a failure, and twice."""


class IBlobReader(Protocol):
    """An open blob: still readable when the blob is deleted meanwhile."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def room(self) -> int:
        """How many bytes it takes in the store: fewer, where zeros are holes."""

    @property
    def stamp(self) -> str:
        """Another one as soon as anybody may have changed the bytes behind the store's back.

        Also when they were copied or restored, so it calls for a look, no more.
        """

    async def write_to(self, consumer: IConsuming, start: int, length: int) -> None:
        """Produce ``length`` bytes from offset ``start`` into ``consumer``.

        Registers itself as a push producer and unregisters at the end.

        :raises BlobDamaged: fewer bytes are there than promised.
        :raises ClientGone: the consumer stopped the producer.
        """

    def close(self) -> None:
        """Let go of the blob.  Harmless twice."""


@frozen
class Room:
    """What a store has room for, in bytes: ``free`` of ``total``."""

    free: int
    total: int


class IBlobStore(Protocol):
    """Bytes under opaque keys."""

    @property
    def algorithms(self) -> Sequence[str]:
        """The digests to compute while bytes come in: where to read them again is dear, all."""

    @property
    def grace(self) -> float:
        """Seconds for which a blob that nobody may get any more stays for those who read it.

        Nought where the store itself keeps what is open.
        """

    async def create(self, key: str, size: int | None) -> IBlobWriter:
        """Begin a blob.  It takes room as its bytes come, so an announcement costs others nothing.

        :param key: from :func:`new_key`, never used before.
        :param size: in bytes; ``None`` if unknown.
        :raises NoRoom: there is not so much room even now; no need to find out after hours.
        :raises StoreUnavailable: the store does not work.
        """

    async def reopen(self, key: str, offset: int, size: int | None) -> IBlobWriter:
        """Go on with a blob that is not committed, or whose commit nobody knows of.

        :param offset: how many of its bytes are durable; what lies behind is dropped.
        :param size: of the whole, in bytes; ``None`` if unknown.
        :raises NoRoom: there is no room for the rest.
        :raises BlobDamaged: it, or some of those bytes, are not there.
        :raises StoreUnavailable: the store does not work.
        """

    async def open(self, key: str, size: int) -> IBlobReader:
        """Open a committed blob.

        :raises BlobDamaged: it is not there or not of ``size`` bytes.
        """

    async def delete(self, key: str) -> None:
        """Remove a blob, committed or not.  Harmless if it is not there.

        :raises StoreUnavailable: the store does not work, or cannot part with what is being read.
        """

    def keys(self) -> AsyncIterator[tuple[str, bool]]:
        """Every key in the store, and whether it is committed."""

    async def quarantine(self, key: str) -> None:
        """Put away a blob that no record knows: kept, but no longer served."""

    async def digests(self, key: str, *names: str, rate: int | None = None) -> Mapping[str, str]:
        """Read a committed blob from end to end and digest it: lower-case hex by name.

        :param names: ``sha256``, ``sha512``, ``md5``, ``adler32``.
        :param rate: at most so many bytes per second.
        :raises BlobDamaged: it cannot be read to its end.
        """

    def link(self, key: str, seconds: int, name: str) -> str | None:
        """A URL under which anybody can fetch a committed blob; ``None``: this store has none.

        :param seconds: for how long it holds.
        :param name: of the file, for who saves it.
        """

    def room(self) -> Room:
        """How much room is left."""

    async def start(self) -> None:
        """Make ready.

        :raises StoreUnavailable: wrong or unusable place.
        """

    async def stop(self) -> None:
        """Let go of everything.  What was committed stays."""


def new_key() -> str:
    """A fresh random key for a blob: 32 hex digits, never reused."""
    return secrets.token_hex(16)


@frozen
class Reservation:
    """Leave to upload.

    :ivar blob: the key under which to store the bytes.
    :ivar room: the most that may come, in bytes, by the payer's quota.
    """

    blob: str
    room: int


@frozen
class Committed:
    """A blob whose bytes are durable.

    :ivar size: in bytes.
    :ivar stamp: what :attr:`IBlobReader.stamp` says as long as nobody touches the bytes.
    """

    size: int
    digests: Digests
    stamp: str


@frozen
class ScrubDue:
    """A blob to read again.

    :ivar size: in bytes.
    :ivar new: it was not read since its upload.
    """

    blob: str
    size: int
    sha256: str
    new: bool


Precondition = Callable[[ImageFile | None], None]
"""Raises PreconditionFailed if the file that is there now is not to be replaced."""


class IBlobRecords(IHolders, Protocol):
    """What is known of the bytes in the store."""

    async def repository_id(self) -> str:
        """The random name of this repository."""

    async def begin(
        self, image: Image, hypervisor: str, uploader: User, terms: UploadTerms
    ) -> Reservation:
        """Reserve quota and record an upload, so that a crash leaves a name to sweep.

        :raises QuotaExceeded: no room for the announced size.
        :raises TooManyUploads: the uploader runs as many as they may.
        :raises Missing: the image is gone.
        """

    async def upload(self, blob: str, uploader: User) -> Upload:
        """A resumable upload of this user's.

        :raises Missing: there is none.
        """

    async def uploads(self, uploader: User) -> list[Upload]:
        """All resumable uploads of a user's, the oldest first."""

    async def finish(
        self,
        blob: str,
        committed: Committed,
        quota: int,
        precondition: Precondition | None = None,
    ) -> Image:
        """The bytes are durable: let the image point to them.

        :param precondition: asked of the file that they replace, with all others kept out.
        :raises Conflict: the upload was given up, or the image deleted, meanwhile.
        :raises NotIdentified: the uploader was suspended or deleted meanwhile.
        :raises NotPermitted: the uploader may no longer upload to the image.
        :raises QuotaExceeded: it grew larger than there was room for.
        """

    async def state(self, blob: str) -> str | None:
        """The blob's state, waiting for a transaction that is about to change it."""

    async def image_of(self, blob: str) -> Image | None:
        """The image that points to a blob."""

    async def release(self, blob: str, *, paused_elsewhere: bool = False) -> None:
        """Give up an upload of this process: its reservation ends, the sweeper may have its bytes.

        :param paused_elsewhere: also one that another process had last, and has no more.
        :raises Unavailable: another process has it.
        """

    async def expire_leases(self, *, all_of_them: bool = False) -> int:
        """Give up the uploads that nobody renews; answer how many.

        :param all_of_them: the daemon has just started and is the only one.
        """

    async def present(self) -> set[str]:
        """The blobs whose bytes must be in the store."""

    async def unknown(self, blobs: Sequence[str]) -> list[str]:
        """Those of ``blobs`` that there is no record of."""

    async def mark_damaged(self, blobs: Sequence[str]) -> int:
        """Note those of ``blobs`` that are still present as lost; answer how many."""

    async def damaged(self) -> list[ScrubDue]:
        """The blobs noted as lost."""

    async def due_for_scrub(self, again_after: float, but: Sequence[str]) -> ScrubDue | None:
        """The next blob to read again.

        :param again_after: seconds since the last time.
        :param but: blobs to pass over.
        """

    async def scrubbed(self, blob: str, digests: Digests, stamp: str) -> None:
        """A blob was read and is what was stored; also one that had been noted as lost."""

    async def stamp(self, blob: str) -> str | None:
        """The stamp under which a blob's bytes were last known to be right.

        Empty if that is not known, ``None`` if there is no such blob any more.
        """

    async def is_copy(self, blob: str, stamp: str) -> bool:
        """A copy in another store was found right under this stamp."""

    async def restamp(self, blob: str, stamp: str) -> None:
        """A blob's bytes are right under this stamp."""

    async def to_delete(self, limit: int, grace: float) -> list[str]:
        """Blobs that nobody may get any more.

        :param grace: seconds since somebody last could.
        """

    async def forget(self, blob: str) -> None:
        """Their bytes are gone."""
