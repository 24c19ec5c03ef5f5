"""The bytes of images: in, durable, and out again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, Protocol

from attrs import define

from repoman.errors import (
    BlobDamaged,
    Conflict,
    DigestMismatch,
    Expired,
    LengthMismatch,
    LengthRequired,
    Missing,
    OutcomeUnknown,
    QuotaExceeded,
    RepomanError,
    TooLarge,
)
from repoman.holders import LONGEST, UploadTerms
from repoman.interfaces import (
    Clock,
    Committed,
    IBlobReader,
    IBlobRecords,
    IBlobStore,
    IBlobWriter,
    IBody,
    IConsuming,
    Precondition,
)
from repoman.model import Caller, Digests, Image, ImageFile, User
from repoman.policy import (
    Redirect,
    authorize_image,
    forbid_changes_to_read_only,
    may_redirect,
)
from repoman.repository.images import FileRef, Images
from repoman.repository.publishing import publish
from repoman.repository.scrubber import Verifier

LINK_SECONDS = 300
"""For how long anybody may begin to fetch from the store by a link that we have handed out."""

MOST_AHEAD = timedelta(seconds=2)
"""How long anybody waits for the date of bytes that took the place of others a moment ago."""

LEASE = 300.0
"""Seconds that an upload lives without a sign of life of its daemon."""


class IDigesting(IConsuming, Protocol):
    """A consumer that counts and digests what it passes on."""

    @property
    def count(self) -> int:
        """Bytes passed on, and those before."""

    @property
    def algorithms(self) -> Collection[str]:
        """The names of the digests that are computed."""

    def hexdigest(self, name: str) -> str:
        """A digest of them."""


Digester = Callable[[IConsuming, int, Iterable[str], int, Any], IDigesting]
"""Makes an IDigesting before a consumer.

Given the consumer, a limit in bytes, names of digests, the count to begin at,
and an earlier one of its kind to go on with, or ``None``.
"""


@define
class UploadLimits:
    """What every upload is bound to, until somebody sets it anew.

    :ivar max_upload: the largest file, in bytes.
    :ivar quota: of users without one of their own, in bytes.
    :ivar uploads: that one user may run at once.
    :ivar keep: how long an unfinished resumable one is kept, in seconds.
    :ivar longest: how long one may take from its beginning, in seconds.
    """

    max_upload: int
    quota: int
    uploads: int
    keep: float
    longest: float = LONGEST

    def terms(self, size: int | None, *, resumable: bool = False) -> UploadTerms:
        """What an upload of ``size`` bytes asks of the records.

        :raises TooLarge: it is over the limit in itself.
        """
        if size is not None and size > self.max_upload:
            raise self.too_large()
        keep = self.keep if resumable else None
        return UploadTerms(size, self.quota, self.uploads, LEASE, keep, self.longest)

    def too_large(self) -> TooLarge:
        """The refusal of a file over the limit."""
        return TooLarge(f"An uploaded file may have {self.max_upload} bytes at most.")

    def too_much(self, room: int, stored: int = 0) -> TooLarge:
        """The refusal of a body that outgrew the limit or the ``room`` there was.

        :param stored: how much of the room is taken, by what came before.
        """
        if self.max_upload <= room:
            return self.too_large()
        return QuotaExceeded(f"The owner's quota has room for {room - stored} more bytes only.")


def compare(found: Callable[[str], str], expected: Mapping[str, str]) -> None:
    """Hold digests against those that the client announced.

    :param found: answers the digest of a name.
    :raises DigestMismatch: one is another.
    """
    for name, digest in expected.items():
        if found(name) != digest:
            raise DigestMismatch(
                f"The bytes that came have the {name} {found(name)}, not the announced {digest}; "
                "nothing was stored."
            )


def known_digests(store: IBlobStore, found: Callable[[str], str]) -> Digests:
    """What is recorded of a file that has just come in.

    :param found: answers the digest of a name.
    """
    return Digests(**{name: found(name) for name in store.algorithms})


async def upload_target(images: Images, caller: Caller, ref: FileRef) -> tuple[User, Image, str]:
    """Who uploads, and the image and the hypervisor that it is for.

    :raises Conflict: the URL names no hypervisor of an image that has several.
    """
    image, hypervisor = await images.find_file(caller, ref)
    user = authorize_image("image.write_bytes", caller, image)
    forbid_changes_to_read_only(image)
    listed = ", ".join(image.hypervisors)
    if hypervisor is None and len(image.hypervisors) > 1:
        raise Conflict(
            f"Image {image.owner}/{image.name} has a file for each of {listed}; "
            "name one in the URL.",
            field="hypervisor",
        )
    hypervisor = hypervisor or image.hypervisors[0]
    if hypervisor not in image.hypervisors:
        raise Conflict(
            f"Image {image.owner}/{image.name} is not for {hypervisor} but for {listed}.",
            field="hypervisor",
        )
    return user, image, hypervisor


class Files:
    """Uploads in one piece, and downloads, under the policy.

    :ivar clock: the time; nothing is served before the second of its date has begun.
    :param pause: returns after so many seconds.
    :param discarded: called when there is work for the sweeper.
    :param redirect: whose downloads may go to the store.
    """

    def __init__(
        self,
        images: Images,
        records: IBlobRecords,
        store: IBlobStore,
        digester: Digester,
        limits: UploadLimits,
        clock: Clock,
        pause: Callable[[float], Awaitable[None]],
        discarded: Callable[[], object],
        redirect: Redirect = "no",
    ) -> None:
        self._images = images
        self._records = records
        self._store = store
        self._digester = digester
        self._limits = limits
        self.clock = clock
        self._pause = pause
        self._discarded = discarded
        self._redirect = redirect
        self._verifier = Verifier(records, store)
        self._receiving: set[str] = set()

    async def _find(self, caller: Caller, ref: FileRef) -> tuple[Image, ImageFile]:
        image, hypervisor = await self._images.find_file(caller, ref)
        if not image.unauthenticated_access:
            authorize_image("image.read_bytes", caller, image)
        if image.has_expired(self.clock()):
            raise Expired(f"Image {image.owner}/{image.name} has expired.")
        stored = image.files.get(hypervisor) if hypervisor else image.default_file
        if stored is None:
            wanted = f" for hypervisor {hypervisor}" if hypervisor else ""
            raise Missing(f"Image {image.owner}/{image.name} has no file{wanted} yet.")
        if stored.damaged:
            raise BlobDamaged(
                f"The bytes of image {image.owner}/{image.name} are damaged in the store; "
                "upload it again, or tell the administrator."
            )
        return image, stored

    async def _find_dated(self, caller: Caller, ref: FileRef) -> tuple[Image, ImageFile]:
        """The file, when the second of its date has begun.

        A Last-Modified must not be later than the answer (RFC 9110 section 8.8.2.1), and what was
        served under one must never have that of what follows: so nobody gets it earlier, and who
        waited gets what is there by then.  A date that lies further ahead is of a clock that was
        set back; nobody waits for that.
        """
        latest = self.clock() + MOST_AHEAD
        while True:
            image, stored = await self._find(caller, ref)
            date, now = stored.bound.replace(microsecond=0), self.clock()
            if not now < date <= latest:
                return image, stored
            await self._pause((date - now).total_seconds())

    async def open(self, caller: Caller, ref: FileRef) -> tuple[Image, ImageFile, IBlobReader]:
        """The file that the caller may fetch, with its bytes: to be closed.

        Late, if somebody touched them behind our back, or if others had its address a moment ago.

        :raises Missing: there is none, or none for this caller.
        :raises Expired: the image's time is over.
        :raises BlobDamaged: the bytes are gone, or wrong.
        """
        image, stored = await self._find_dated(caller, ref)
        while True:
            try:
                return image, stored, await self._open(stored)
            except BlobDamaged:
                # Replaced between the look and the opening?  Then it is about the new one.
                image, current = await self._find_dated(caller, ref)
                if current.blob == stored.blob:
                    raise
                stored = current

    async def _open(self, stored: ImageFile) -> IBlobReader:
        try:
            reader = await self._store.open(stored.blob, stored.size)
        except BlobDamaged:
            await self._records.mark_damaged([stored.blob])  # unless it was replaced just now
            raise
        try:
            await self._verifier.verify(stored, reader.stamp)
        except BaseException:
            reader.close()
            raise
        return reader

    @property
    def redirects(self) -> bool:
        """Some downloads may go to the store, depending on what their client prefers."""
        return self._redirect != "no"

    def link(
        self, image: Image, stored: ImageFile, takes: bool | None, *, over_tls: bool
    ) -> str | None:
        """Where in the store a file that was opened may be fetched instead; ``None``: nowhere.

        :param takes: the client has said that it follows; that it does not; ``None``: neither.
        :param over_tls: how it was asked for; then it is not sent to where others read or write.
        """
        if not may_redirect(self._redirect, image, takes):
            return None
        url = self._store.link(stored.blob, LINK_SECONDS, image.name)
        return None if url and over_tls and not url.startswith("https:") else url

    async def store(
        self,
        caller: Caller,
        ref: FileRef,
        body: IBody,
        announced: bool,
        expected: Mapping[str, str],
        precondition: Precondition | None = None,
    ) -> Image:
        """Take an upload; durable when this returns.

        Everything that can be refused is refused before the first byte.

        :param announced: the client said that there is a body.
        :param expected: digests in hex that the client announced, by name.
        :param precondition: asked before the first byte, and again when the file takes its place.
        """
        user, image, hypervisor = await upload_target(self._images, caller, ref)
        if precondition is not None:
            precondition(image.files.get(hypervisor))
        if not announced:
            raise LengthRequired("Say how long the image is: send Content-Length, or chunks.")
        terms = self._limits.terms(body.length)
        reservation = await self._records.begin(image, hypervisor, user, terms)
        key = reservation.blob
        self._receiving.add(key)
        try:
            committed = await self._receive(key, reservation.room, body, expected)
            quota = self._limits.quota
            image = await publish(self._records, key, committed, quota, precondition)
        except OutcomeUnknown:
            raise
        except BaseException:
            await self._give_up(key)
            raise
        finally:
            self._receiving.discard(key)
        self._discarded()
        return image

    async def renew_leases(self) -> None:
        """Tell the records that the running uploads live."""
        if self._receiving:
            await self._records.renew(list(self._receiving), LEASE)

    async def _receive(
        self, key: str, room: int, body: IBody, expected: Mapping[str, str]
    ) -> Committed:
        writer = await self._store.create(key, body.length)
        try:
            limit = min(room, self._limits.max_upload)
            digesting = self._digester(writer, limit, {*self._store.algorithms, *expected}, 0, None)
            try:
                await body.deliver_to(digesting)
            except TooLarge:
                raise self._limits.too_much(room) from None
            if body.length is not None and digesting.count != body.length:
                raise LengthMismatch(
                    f"{digesting.count} bytes came of the {body.length} that were announced."
                )
            compare(digesting.hexdigest, expected)
            stamp = await writer.commit()
        except BaseException:
            await discard(writer)
            raise
        return Committed(digesting.count, known_digests(self._store, digesting.hexdigest), stamp)

    async def _give_up(self, key: str) -> None:
        try:
            await self._records.release(key)
        except RepomanError:
            return  # its lease ends, and then the sweeper does this
        self._discarded()


async def discard(writer: IBlobWriter) -> None:
    """Forget what was written, as far as that is possible now."""
    try:
        await writer.discard()
    except RepomanError:
        return  # the record of the upload lets the sweeper find what is left
