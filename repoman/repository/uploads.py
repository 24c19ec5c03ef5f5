"""Uploads that outlive their connection, their proxy and the daemon.

After draft-ietf-httpbis-resumable-upload.  An offset is a number of durable
bytes, never of received ones.  An upload belongs to the user, so a renewed
proxy goes on where the expired one stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from attrs import field, frozen

from repoman.errors import (
    BlobDamaged,
    DatabaseUnavailable,
    DigestMismatch,
    Invalid,
    LengthMismatch,
    Missing,
    NoRoom,
    NotIdentified,
    QuotaExceeded,
    RepomanError,
    TooLarge,
    Unavailable,
    WrongOffset,
)
from repoman.interfaces import Committed, IBlobRecords, IBlobStore, IBlobWriter, IBody
from repoman.model import Caller, Image, ImageRef, Upload, User
from repoman.policy import forbid_changes_to_read_only, identified, may_write
from repoman.repository.files import (
    LEASE,
    Digester,
    IDigesting,
    UploadLimits,
    compare,
    known_digests,
    upload_target,
)
from repoman.repository.images import FileRef, Images
from repoman.repository.publishing import publish
from repoman.repository.running import Run, Running

REMEMBERED = 1000
"""For how many uploads the digest so far is kept; that of others is computed anew at the end."""


@frozen
class Part:
    """A piece of an upload, as a client sends it.

    :ivar offset: where it begins, in bytes.
    :ivar last: the upload is complete with it.
    :ivar length: of the whole, in bytes, if the client says so.
    :ivar expected: digests of the whole in hex that the client announced, by name.
    :ivar content: the same of this piece alone.
    """

    offset: int
    last: bool
    length: int | None
    expected: Mapping[str, str]
    content: Mapping[str, str] = field(factory=dict)


class Uploads:
    """Resumable uploads, under the policy.

    :param discarded: called when there is work for the sweeper.
    """

    def __init__(
        self,
        images: Images,
        records: IBlobRecords,
        store: IBlobStore,
        digester: Digester,
        limits: UploadLimits,
        discarded: Callable[[], object],
    ) -> None:
        self._images = images
        self._records = records
        self._store = store
        self._digester = digester
        self._limits = limits
        self._discarded = discarded
        self._running = Running(records)
        self._digesting: dict[str, IDigesting] = {}

    async def create(self, caller: Caller, ref: FileRef, length: int | None) -> Upload:
        """Begin an upload: everything that can be refused is refused now."""
        user, image, hypervisor = await upload_target(self._images, caller, ref)
        terms = self._limits.terms(length, resumable=True)
        reservation = await self._records.begin(image, hypervisor, user, terms)
        try:
            writer = await self._store.create(reservation.blob, length)
            await writer.keep()
            # Only now is there something to go on with: until here it lived by its lease.
            await self._pause(reservation.blob, 0, 0)
        except BaseException:
            await self._forget(reservation.blob)
            raise
        return await self._records.upload(reservation.blob, user)

    async def find(self, caller: Caller, upload_id: str, *, settle: bool = False) -> Upload:
        """The state of an upload of the caller's.

        :param settle: end a transfer that still seems to run, so that the offset is the last
            word; a credential that may only read ends nothing.
        :raises Missing: the caller has none of that name.
        """
        user = identified(caller)
        upload = await self._records.upload(upload_id, user)
        if settle and not caller.reads_only:
            await self._running.settle(upload_id)
            upload = await self._records.upload(upload_id, user)
        return upload

    async def listing(self, caller: Caller) -> list[Upload]:
        """The caller's unfinished uploads."""
        return await self._records.uploads(identified(caller))

    async def delete(self, caller: Caller, upload_id: str) -> None:
        """Give an upload up: whose it is may do so, whatever became of the image."""
        user = may_write(caller)
        await self._records.upload(upload_id, user)
        await self._running.settle(upload_id)
        await self._forget(upload_id, paused_elsewhere=True)

    async def append(self, caller: Caller, upload_id: str, part: Part, body: IBody) -> Image | int:
        """Take a part; answer the image if it was the last one, else the new offset.

        :raises WrongOffset: it does not begin where the durable bytes end.
        """
        user = await self._ready(caller, upload_id)
        with self._running.beginning(upload_id, body) as run:
            upload = await self._records.upload(upload_id, user)
            _check(upload, part, body)
            return await self._append(user, upload, part, run)

    async def renew_leases(self) -> None:
        """Tell the records that the running uploads live."""
        if blobs := self._running.blobs():
            await self._records.renew(blobs, LEASE)

    async def record_progress(self) -> None:
        """Tell the records how much of the running uploads is durable."""
        await self._running.record_progress(self._limits.keep)

    def let_go(self) -> None:
        """End the uploads that another daemon may take any moment."""
        self._running.let_go()

    async def _ready(self, caller: Caller, upload_id: str) -> User:
        """The user, if the upload is theirs and the image still takes it; nothing runs."""
        user = identified(caller)
        upload = await self._records.upload(upload_id, user)
        ref = ImageRef(upload.owner, upload.image)
        forbid_changes_to_read_only(await self._images.find(caller, ref, "image.write_bytes"))
        await self._running.settle(upload_id)
        return user

    async def _append(self, user: User, upload: Upload, part: Part, run: Run) -> Image | int:
        key, offset = upload.id, upload.offset
        length = upload.length if upload.length is not None else part.length
        terms = self._limits.terms(length)
        resumption = await self._records.resume(key, user, terms, offset)
        run.is_held, room = True, offset + resumption.room
        try:
            if length is None and offset + (run.body.length or 0) > room:
                raise self._limits.too_much(room, offset)
            writer = run.writer = await self._store.reopen(key, offset, length)
        except BlobDamaged:
            # No retry would find them again.
            await self._forget(key)
            raise Missing("The stored part of this upload is lost; begin it anew.") from None
        except BaseException:
            await self._pause(key, offset, offset)
            raise
        if not resumption.was_mine:  # a count may agree by chance, and the bytes not
            self._digesting.pop(key, None)
        digesting = self._continued(key, writer, offset, min(room, self._limits.max_upload))
        content = self._digester(digesting, room, part.content, offset, None)
        try:
            await run.body.deliver_to(content)
        except BaseException as error:
            await self._keep(key, writer, offset)
            if isinstance(error, TooLarge):
                raise _too_much(length, self._limits, room, offset) from None
            raise
        try:
            compare(content.hexdigest, part.content)
        except DigestMismatch:
            await self._take_back(key, writer, offset)
            raise
        if part.last and digesting.count == (length or digesting.count):
            return await self._complete(key, writer, digesting, part)
        kept = await self._keep(key, writer, offset)
        if part.last:
            raise LengthMismatch(f"The upload would end at {kept} of {length} bytes.")
        return kept

    def _continued(self, key: str, writer: IBlobWriter, offset: int, limit: int) -> IDigesting:
        """A digester that goes on where the last one stopped.

        If there is none, after a restart or a part that another process took, nothing is
        digested on the way: the store does it at the end.
        """
        previous = self._digesting.pop(key, None)
        if previous is not None and previous.count != offset:
            previous = None
        names = self._store.algorithms if previous is not None or offset == 0 else ()
        digesting = self._digester(writer, limit, names, offset, previous)
        self._digesting[key] = digesting
        if len(self._digesting) > REMEMBERED:  # the oldest; many were never taken up again
            del self._digesting[next(iter(self._digesting))]
        return digesting

    async def _keep(self, key: str, writer: IBlobWriter, before: int) -> int:
        """Stop for now; answer the offset to go on from."""
        try:
            await writer.keep()
        finally:
            await self._pause(key, writer.durable, before)
        return writer.durable

    async def _take_back(self, key: str, writer: IBlobWriter, before: int) -> None:
        """Stop, and count nothing of what came."""
        self._digesting.pop(key, None)
        try:
            await writer.keep()
        finally:
            await self._pause(key, before, before)

    async def _pause(self, key: str, durable: int, before: int) -> None:
        terms = self._limits.terms(None, resumable=True)
        try:
            await self._records.pause(key, durable, terms)
        except QuotaExceeded:
            await self._records.pause(key, before, terms)
            raise

    async def _complete(
        self, key: str, writer: IBlobWriter, digesting: IDigesting, part: Part
    ) -> Image:
        size, durable = digesting.count, writer.durable
        try:
            stamp = await writer.commit()
            durable = size
            found = await self._found(key, digesting, part.expected)
            compare(found.__getitem__, part.expected)
            whole = Committed(size, known_digests(self._store, found.__getitem__), stamp)
            image = await publish(self._records, key, whole, self._limits.quota)
        except (Unavailable, NoRoom, NotIdentified):
            # Nothing is wrong with the upload: the client sends the rest again, if only its end.
            with suppress(DatabaseUnavailable):
                await self._pause(key, durable, durable)
            raise
        except BaseException:
            await self._forget(key)
            raise
        self._digesting.pop(key, None)
        self._discarded()
        return image

    async def _found(
        self, key: str, digesting: IDigesting, expected: Mapping[str, str]
    ) -> Mapping[str, str]:
        names = {*self._store.algorithms, *expected}
        if names <= set(digesting.algorithms):
            return {name: digesting.hexdigest(name) for name in names}
        return await self._store.digests(key, *sorted(names))

    async def _forget(self, key: str, *, paused_elsewhere: bool = False) -> None:
        self._digesting.pop(key, None)
        await self._records.release(key, paused_elsewhere=paused_elsewhere)
        self._discarded()


def _check(upload: Upload, part: Part, body: IBody) -> None:
    """Refuse a part that cannot be right, before its first byte."""
    if part.offset != upload.offset:
        raise WrongOffset(
            f"The upload goes on at byte {upload.offset}, not at {part.offset}.",
            offset=upload.offset,
        )
    if None not in (upload.length, part.length) and upload.length != part.length:
        raise Invalid(
            f"The upload was announced with {upload.length} bytes, not {part.length}.",
            field="Upload-Length",
        )
    length = upload.length if upload.length is not None else part.length
    if length is not None and length < upload.offset:
        raise LengthMismatch(f"{upload.offset} bytes are stored already, of {length}.")
    if length is None or body.length is None:
        return
    end = upload.offset + body.length
    if end > length or (part.last and end < length):
        raise LengthMismatch(f"This part would end at byte {end} of {length}.")


def _too_much(length: int | None, limits: UploadLimits, room: int, offset: int) -> RepomanError:
    if length is not None:
        return LengthMismatch(f"More bytes came than the {length} announced for the whole.")
    return limits.too_much(room, offset)
