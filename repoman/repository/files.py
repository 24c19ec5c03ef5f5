"""The bytes of images: in, durable, and out again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from attrs import frozen

from repoman.errors import (
    Conflict,
    DatabaseUnavailable,
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
from repoman.interfaces import (
    Clock,
    IBlobReader,
    IBlobRecords,
    IBlobStore,
    IBlobWriter,
    IBody,
    IConsuming,
    UploadTerms,
)
from repoman.model import Caller, Digests, Image, ImageFile
from repoman.policy import authorize_image, forbid_changes_to_read_only
from repoman.repository.images import FileRef, Images

LEASE = 300.0
"""Seconds that an upload lives without a sign of life of its daemon."""


class IDigesting(IConsuming, Protocol):
    """A consumer that counts and digests what it passes on."""

    @property
    def count(self) -> int:
        """Bytes passed on."""

    def hexdigest(self, name: str) -> str:
        """A digest of them."""


Digester = Callable[[IConsuming, int, Iterable[str]], IDigesting]
"""Makes an IDigesting before a consumer, with a limit in bytes and names of digests."""


@frozen
class UploadLimits:
    """What every upload is bound to.

    :ivar max_upload: the largest file, in bytes.
    :ivar quota: of users without one of their own, in bytes.
    :ivar uploads: that one user may run at once.
    """

    max_upload: int
    quota: int
    uploads: int


class Files:
    """Uploads and downloads, under the policy.

    :param discarded: called when there is work for the sweeper.
    """

    def __init__(
        self,
        images: Images,
        records: IBlobRecords,
        store: IBlobStore,
        digester: Digester,
        limits: UploadLimits,
        clock: Clock,
        discarded: Callable[[], object],
    ) -> None:
        self._images = images
        self._records = records
        self._store = store
        self._digester = digester
        self._limits = limits
        self._clock = clock
        self._discarded = discarded
        self._receiving: set[str] = set()

    async def find(self, caller: Caller, ref: FileRef) -> tuple[Image, ImageFile]:
        """The file that the caller may fetch.

        :raises Missing: there is none, or none for this caller.
        :raises Expired: the image's time is over.
        """
        image, hypervisor = await self._images.find_file(caller, ref)
        if not image.unauthenticated_access:
            authorize_image("image.read_bytes", caller, image)
        if image.has_expired(self._clock()):
            raise Expired(f"Image {image.owner}/{image.name} has expired.")
        stored = image.files.get(hypervisor) if hypervisor else image.default_file
        if stored is None:
            wanted = f" for hypervisor {hypervisor}" if hypervisor else ""
            raise Missing(f"Image {image.owner}/{image.name} has no file{wanted} yet.")
        return image, stored

    async def open(self, stored: ImageFile) -> IBlobReader:
        """The bytes of a file.

        :raises BlobDamaged: they are gone, or were replaced a moment ago.
        """
        return await self._store.open(stored.blob, stored.size)

    async def store(
        self,
        caller: Caller,
        ref: FileRef,
        body: IBody,
        announced: bool,
        expected: Mapping[str, str],
    ) -> Image:
        """Take an upload; durable when this returns.

        Everything that can be refused is refused before the first byte.

        :param announced: the client said that there is a body.
        :param expected: digests in hex that the client announced, by name.
        """
        image, hypervisor = await self._target(caller, ref)
        if not announced:
            raise LengthRequired("Say how long the image is: send Content-Length, or chunks.")
        if body.length is not None and body.length > self._limits.max_upload:
            raise self._too_large()
        uploader = authorize_image("image.write_bytes", caller, image)
        reservation = await self._records.begin(
            image,
            hypervisor,
            uploader,
            UploadTerms(body.length, self._limits.quota, self._limits.uploads, LEASE),
        )
        self._receiving.add(reservation.blob)
        try:
            digests, size = await self._receive(reservation.blob, reservation.room, body, expected)
            return await self._finish(reservation.blob, size, digests)
        except OutcomeUnknown:
            raise
        except BaseException:
            await self._give_up(reservation.blob)
            raise
        finally:
            self._receiving.discard(reservation.blob)

    async def renew_leases(self) -> None:
        """Tell the records that the running uploads live."""
        if self._receiving:
            await self._records.renew(list(self._receiving), LEASE)

    async def _target(self, caller: Caller, ref: FileRef) -> tuple[Image, str]:
        image, hypervisor = await self._images.find_file(caller, ref)
        authorize_image("image.write_bytes", caller, image)
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
        return image, hypervisor

    async def _receive(
        self, key: str, room: int, body: IBody, expected: Mapping[str, str]
    ) -> tuple[Digests, int]:
        writer = await self._store.create(key, body.length)
        try:
            digesting = self._digester(
                writer, min(room, self._limits.max_upload), {"sha256", *expected}
            )
            try:
                await body.deliver_to(digesting)
            except TooLarge:
                raise (
                    self._too_large()
                    if self._limits.max_upload <= room
                    else QuotaExceeded(f"The owner's quota has room for {room} more bytes only.")
                ) from None
            self._compare(body, digesting, expected)
            await writer.commit()
        except BaseException:
            await _discard(writer)
            raise
        return Digests(digesting.hexdigest("sha256")), digesting.count

    def _compare(self, body: IBody, digesting: IDigesting, expected: Mapping[str, str]) -> None:
        if body.length is not None and digesting.count != body.length:
            raise LengthMismatch(
                f"{digesting.count} bytes came of the {body.length} that were announced."
            )
        for name, digest in expected.items():
            found = digesting.hexdigest(name)
            if found != digest:
                raise DigestMismatch(
                    f"The bytes that came have the {name} {found}, not the announced {digest}; "
                    "nothing was stored."
                )

    async def _finish(self, key: str, size: int, digests: Digests) -> Image:
        try:
            image = await self._records.finish(key, size, digests, self._limits.quota)
        except OutcomeUnknown:
            # COMMIT was on its way when the line broke: ask what became of it.
            image = await self._settle(key, size, digests)
        self._discarded()
        return image

    async def _settle(self, key: str, size: int, digests: Digests) -> Image:
        state = await self._ask_state(key)
        if state == "receiving":
            return await self._records.finish(key, size, digests, self._limits.quota)
        stored = await self._records.image_of(key) if state == "present" else None
        if stored is None:
            raise OutcomeUnknown("The upload's fate is not known yet; look at the image again.")
        return stored

    async def _ask_state(self, key: str) -> str | None:
        try:
            return await self._records.state(key)
        except DatabaseUnavailable:
            raise OutcomeUnknown(
                "The database went away at the very end; look at the image again before "
                "you repeat the upload."
            ) from None

    async def _give_up(self, key: str) -> None:
        try:
            await self._records.release(key)
        except RepomanError:
            return  # its lease ends, and then the sweeper does this
        self._discarded()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"At most {self._limits.max_upload} bytes may be uploaded at once.")


async def _discard(writer: IBlobWriter) -> None:
    try:
        await writer.discard()
    except RepomanError:
        return  # the record of the upload lets the sweeper find what is left
