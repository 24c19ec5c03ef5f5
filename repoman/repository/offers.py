"""Images that change their owner by consent: offered by one, accepted by the other."""

from __future__ import annotations

from repoman.errors import AlreadyExists, Conflict, Invalid
from repoman.model import Caller, Image, ImageRef, Offer, check_image_name, check_name
from repoman.policy import (
    authorize,
    forbid_changes_to_read_only,
    missing_offer,
    protected,
)
from repoman.records import IOfferRecords, OfferPlace
from repoman.repository.images import Images


class Offers:
    """Offers, under the policy.

    What the recipient has, a name or a quota, is asked when they accept and told to them alone:
    the owner learns nothing of it.
    """

    def __init__(self, images: Images, records: IOfferRecords) -> None:
        self._images = images
        self._records = records

    async def listing(
        self,
        caller: Caller,
        limit: int,
        after: OfferPlace | None = None,
        each: int | None = None,
    ) -> list[Offer]:
        """What the caller offers and is offered, the newest first.

        :param each: how many of the ones, and of the others, at most.
        """
        viewer = authorize("repository.read", caller)
        return await self._records.listing(viewer, limit, after, each)

    async def find(self, caller: Caller, ref: ImageRef) -> Offer:
        """The offer of an image, by the caller or to them; administrators see all.

        :raises Missing: there is none.
        """
        user = authorize("repository.read", caller)
        owner = ref.owner or user.user_name
        offer = await self._records.find(user, owner, ref.name)
        if offer is None:
            raise missing_offer(owner, ref.name)
        return offer

    async def make(self, caller: Caller, ref: ImageRef, recipient: str) -> None:
        """Offer an image to a user, who may accept it.

        :raises Invalid: there is no such user, or it is the owner.
        :raises Missing: there is no such image, or not for this caller.
        :raises Conflict: the owner offers as many images as one may.
        """
        image = await self._images.find(caller, ref, "image.offer")
        forbid_changes_to_read_only(image)
        check_name("user", recipient, named="recipient")
        if recipient == image.owner:
            raise Invalid(f"The image is {recipient}'s already.", field="recipient")
        await self._records.make(image, recipient)

    async def accept(
        self,
        caller: Caller,
        ref: ImageRef,
        name: str | None = None,
        uuid: str | None = None,
        version: int | None = None,
    ) -> Image:
        """Let an image that is offered be the caller's.

        :param name: another one than it has.
        :param uuid: of the image that the caller has seen.
        :param version: of that image, as the caller has seen it.
        :raises Missing: there is no such offer.
        :raises Conflict: it is not what the caller has seen.
        :raises AlreadyExists: the caller has an image of that name.
        :raises QuotaExceeded: the caller has no room for it.
        """
        user = authorize("offer.accept", caller)
        offer = await self.find(caller, ref)
        if offer.recipient != user.user_name:
            raise protected("offer.not_yours")
        if uuid not in (None, offer.image.uuid):
            raise Conflict(
                f"Another image is offered as {offer.image.path} since you looked.  "
                "Look at it before you accept it."
            )
        name = check_image_name(offer.image.name if name is None else name)
        try:
            return await self._records.accept(offer, user, self._images.quota, name, version)
        except AlreadyExists:
            raise AlreadyExists(
                f"You have an image {name} already; accept this one under another name.",
                field="name",
            ) from None

    async def end(self, caller: Caller, ref: ImageRef) -> None:
        """Decline what is offered to the caller, or withdraw what they offer.

        :raises Missing: there is no such offer.
        """
        offer = await self.find(caller, ref)
        if caller.user is not None and caller.user.user_name == offer.recipient:
            authorize("offer.decline", caller)
            await self._records.end(offer, "image.decline")
        else:
            authorize("image.offer", caller, offer.image)
            await self._records.end(offer, "image.withdraw")
