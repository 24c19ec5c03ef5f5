"""Images as records: create, describe, list, change, share, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, frozen

from repoman.errors import Invalid, Missing, NotIdentified
from repoman.model import (
    DEFAULT_FILE_WORDS,
    RESERVED_WORDS,
    Caller,
    Group,
    Image,
    ImageRef,
    check_image_name,
    check_name,
)
from repoman.policy import (
    authorize,
    authorize_changes,
    authorize_image,
    forbid_changes_to_read_only,
    identified,
    may,
    missing_image,
)
from repoman.reach import reach
from repoman.records import IImageRecords, ImageLimits, Listing, NewImage, Place
from repoman.texts import check_texts

MOST_HYPERVISORS = 32
"""How many hypervisors one image can be for: a new word is a name that no user can have."""


@frozen
class FileRef:
    """How a raw URL names bytes.

    :ivar word: a user or a hypervisor, in the two-part form; else ``None``.
    :ivar owner: in the three-part form; else ``None``.
    :ivar hypervisor: in the three-part form; else ``None``.
    """

    name: str
    word: str | None = None
    owner: str | None = None
    hypervisor: str | None = None


def check_hypervisors(words: tuple[str, ...]) -> tuple[str, ...]:
    """A list of hypervisors that is one, without doubles.

    :raises Invalid: a word that cannot be a hypervisor's name.
    """
    listed = tuple(dict.fromkeys(words))
    if not 0 < len(listed) <= MOST_HYPERVISORS:
        raise Invalid(f"An image is for 1 to {MOST_HYPERVISORS} hypervisors.", field="hypervisor")
    for word in listed:
        check_name("hypervisor", word)
        if word in RESERVED_WORDS:
            raise Invalid(f"{word} is a reserved word, not a hypervisor.", field="hypervisor")
    return listed


def _for_another(caller: Caller, image: Image, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Changes with an ``owner``, as the caller may make them: at once, or as an offer.

    :raises NotPermitted: neither.
    """
    owner = check_name("user", changes["owner"], named="owner")
    others = {name: value for name, value in changes.items() if name != "owner"}
    offers = may("image.offer", caller, image)
    if owner == image.owner and not offers and may("image.see", caller, image):
        return others  # only its owner withdraws an offer by saying it again
    if may("image.give", caller, image):
        return changes
    authorize("image.offer", caller, image)
    return {**others, "recipient": owner}


class Images:
    """The records of images, under the policy.

    :ivar quota: of a user without one of their own, in bytes.
    :ivar limits: what the records hold each user to.
    :param discarded: called when there is work for the sweeper.
    """

    def __init__(
        self,
        records: IImageRecords,
        quota: int,
        discarded: Callable[[], object],
        limits: ImageLimits,
    ) -> None:
        self._records = records
        self.quota = quota
        self.limits = limits
        self._discarded = discarded

    async def find(self, caller: Caller, ref: ImageRef, action: str = "image.see") -> Image:
        """The image, if the caller may do ``action`` to it.

        :raises Missing: it does not exist, or not for this caller.
        """
        user = identified(caller)
        owner = ref.owner or user.user_name
        image = await self._records.find(owner, ref.name, reach(user))
        if image is None:
            raise missing_image(owner, ref.name)
        authorize_image(action, caller, image)
        return image

    async def look(self, caller: Caller, ref: ImageRef) -> Image:
        """The image, for its page or its record: public ones for everybody.

        :raises Missing: it does not exist, or not for this caller.
        :raises NotIdentified: the same, for nobody in particular.
        """
        owner = ref.owner or (caller.user.user_name if caller.user else "")
        image = await self._records.find(owner, ref.name, reach(caller.user))
        if image is None or not may("image.look", caller, image):
            identified(caller)
            raise missing_image(owner, ref.name)
        return image

    async def public(self, wanted: Listing) -> list[Image]:
        """The public images wanted, which everybody may look at."""
        return await self._records.listing(evolve(wanted, public=True, viewer=None))

    async def public_places(self, wanted: Listing) -> list[Place]:
        """The same by name only: cheaper."""
        return await self._records.places(evolve(wanted, public=True, viewer=None))

    async def publishers(self, after: str, limit: int) -> list[str]:
        """Users with public images that can be fetched, in order; those after a name."""
        return await self._records.publishers(after, limit)

    async def check_publishes(self, caller: Caller, wanted: Listing) -> None:
        """Do nothing, if there is a public image as is wanted.

        Who has none is not told from who does not exist.

        :raises Missing: there is none.
        :raises NotIdentified: the same, for nobody in particular.
        """
        if not await self.public_places(evolve(wanted, limit=1)):
            identified(caller)
            raise Missing(f"There are no public images of {wanted.owner} here.")

    async def names_image(self, caller: Caller, ref: FileRef) -> bool:
        """Whether a raw URL means an image that is the caller's business at all."""
        try:
            await self.find_file(caller, ref)
        except (Missing, NotIdentified):
            return False
        return True

    async def find_file(self, caller: Caller, ref: FileRef) -> tuple[Image, str | None]:
        """The image that a raw URL means, and the hypervisor it names; not yet authorized.

        :raises Missing: there is none.
        """
        own = caller.user.user_name if caller.user else None
        word, hypervisor, within = ref.word, ref.hypervisor, reach(caller.user)
        if word is not None and word not in DEFAULT_FILE_WORDS:
            image = await self._records.find_either(word, own, ref.name, within)
            if image is not None and image.owner != word:
                hypervisor = word
        else:
            owner = ref.owner or own
            image = await self._records.find(owner, ref.name, within) if owner else None
        if image is None:
            identified(caller)
            raise missing_image(ref.owner or word or own or "", ref.name)
        return image, None if hypervisor in DEFAULT_FILE_WORDS else hypervisor

    async def create(self, caller: Caller, new: NewImage) -> Image:
        """Make an image of the caller's; or of another user's, where that is permitted."""
        user = authorize("image.create", caller)
        if new.owner and new.owner != user.user_name:
            authorize("image.create_for_another", caller, new)
        check_image_name(new.name)
        listed, owner = check_hypervisors(new.hypervisors), new.owner or user.user_name
        keeps = owner != user.user_name and not user.is_admin
        return await self._records.create(
            evolve(new, hypervisors=listed, owner=owner, keeps_files=keeps)
        )

    async def change(self, caller: Caller, ref: ImageRef, changes: Mapping[str, Any]) -> Image:
        """Set fields of the record; rename and give away touch no bytes.

        A new ``owner`` is only an offer where the caller may not give the image at once.
        """
        image = await self.find(caller, ref, "image.modify")
        authorize_changes(caller, image, changes)
        if changes.get("read_only", True) is not False:
            forbid_changes_to_read_only(image)
        check_texts(changes, image)
        if "name" in changes:
            check_image_name(changes["name"])
        if "hypervisors" in changes:
            changes = {**changes, "hypervisors": check_hypervisors(changes["hypervisors"])}
        if "owner" in changes:
            changes = _for_another(caller, image, changes)
        arranges = may("image.arrange_files", caller, image)
        if "expires" in changes and (arranges or changes["expires"] != image.expires):
            changes = {**changes, "keeps_files": not arranges}
        return await self._records.change(image, changes, self.quota)

    async def delete(self, caller: Caller, ref: ImageRef) -> None:
        """Remove the image; its bytes follow soon after."""
        image = await self.find(caller, ref, "image.delete")
        forbid_changes_to_read_only(image)
        await self._records.delete(image)
        self._discarded()

    async def share(
        self, caller: Caller, ref: ImageRef, *, user: str = "", group: str = ""
    ) -> None:
        """Share with a user, or with a group that the owner is in."""
        image = await self.find(caller, ref, "image.share")
        if group:
            await self._records.require_group(group)
            authorize("image.share_with_group", caller, Group(0, group))
        await self._records.share(image, user=user, group=group)

    async def unshare(
        self, caller: Caller, ref: ImageRef, *, user: str = "", group: str = ""
    ) -> None:
        """End the sharing with a user or a group."""
        image = await self.find(caller, ref, "image.share")
        await self._records.unshare(image, user=user, group=group)

    async def listing(self, caller: Caller, wanted: Listing) -> list[Image]:
        """The images wanted that the caller may see."""
        user = authorize("repository.read", caller)
        return await self._records.listing(evolve(wanted, viewer=user))

    async def places(self, caller: Caller, wanted: Listing) -> list[Place]:
        """The same by name only: cheaper."""
        user = authorize("repository.read", caller)
        return await self._records.places(evolve(wanted, viewer=user))
