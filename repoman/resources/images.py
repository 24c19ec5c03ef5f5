"""Images as records, and their sharing."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from repoman.model import DEFAULT_HYPERVISOR, ImageRef
from repoman.policy import authorize, may
from repoman.records import Listing, NewImage
from repoman.repository import Repository
from repoman.repository.images import Images
from repoman.resources.asking import Ask, Routes
from repoman.resources.forms import ABSENT, NEVER, Moment, Words, given, read_form
from repoman.resources.listing import list_images, shown, wants_full, wants_public
from repoman.resources.replies import Reply
from repoman.wire import image_json

USUAL = Words((DEFAULT_HYPERVISOR,))
"""The hypervisors of an image whose creator named none."""

UNKNOWN_FIELD = 'The "{}" image metadata does not exist.'


@frozen(kw_only=True)
class ChangeForm:
    """What can be changed of an image."""

    name: str = ABSENT
    description: str | None = ABSENT
    os_variant: str | None = ABSENT
    os_type: str | None = ABSENT
    os_arch: str | None = ABSENT
    hypervisor: Words = ABSENT
    expires: Moment = ABSENT
    read_only: bool = ABSENT
    unauthenticated_access: bool = ABSENT
    owner: str = ABSENT


@frozen(kw_only=True)
class CreateForm:
    """What an image is created with."""

    name: str
    description: str | None = None
    os_variant: str | None = None
    os_type: str | None = None
    os_arch: str | None = None
    hypervisor: Words = USUAL
    expires: Moment = NEVER
    read_only: bool = False
    unauthenticated_access: bool = False
    user_name: str = ""


def add_routes(routes: Routes, repository: Repository) -> None:
    """``/api/images`` and below, but for the bytes."""
    images = repository.images
    one = ("/api/images/<user>/<image>", "/api/images/<image>")

    @routes.add("GET", "/api/images")
    async def listing(ask: Ask) -> None:
        await list_images(ask, repository, Listing(public=wants_public(ask)))

    @routes.add("POST", "/api/images")
    async def create(ask: Ask) -> Reply:
        authorize("image.create", ask.caller)
        form = await read_form(ask.request, CreateForm, unknown=UNKNOWN_FIELD)
        image = await images.create(ask.caller, new_image(form))
        body = image_json(image, ask.urls)
        return Reply(body, 201, {"Location": body["file_url"]})

    @routes.add("GET", *one)
    async def describe(ask: Ask, image: str, user: str | None = None) -> Reply:
        found = await images.look(ask.caller, ImageRef(user, image))
        return Reply(shown(ask, found, full=wants_full(ask)))

    @routes.add("POST", *one)
    async def change(ask: Ask, image: str, user: str | None = None) -> Reply:
        ref = ImageRef(user, image)
        await images.find(ask.caller, ref, "image.modify")
        form = await read_form(ask.request, ChangeForm, unknown=UNKNOWN_FIELD)
        changes = image_changes(form)
        changed = await images.change(ask.caller, ref, changes)
        # Who may change it need not be one of those who may see it; who gives it away was.
        sees = "owner" in changes or may("image.see", ask.caller, changed)
        return Reply(image_json(changed, ask.urls) if sees else {})

    @routes.add("DELETE", *one)
    async def delete(ask: Ask, image: str, user: str | None = None) -> Reply:
        await images.delete(ask.caller, ImageRef(user, image))
        return Reply({})

    for kind in ("user", "group"):
        _add_sharing(routes, images, kind, [f"{path}/share/{kind}/<name>" for path in one])


def _add_sharing(routes: Routes, images: Images, kind: str, paths: list[str]) -> None:
    @routes.add("POST", *paths)
    async def share(ask: Ask, image: str, name: str, user: str | None = None) -> Reply:
        await images.share(ask.caller, ImageRef(user, image), **{kind: name})
        return Reply({})

    @routes.add("DELETE", *paths)
    async def unshare(ask: Ask, image: str, name: str, user: str | None = None) -> Reply:
        await images.unshare(ask.caller, ImageRef(user, image), **{kind: name})
        return Reply({})


def image_changes(form: ChangeForm) -> dict[str, Any]:
    """What a form changes, by the names that the repository knows."""
    changes = given(form)
    if "hypervisor" in changes:
        changes["hypervisors"] = changes.pop("hypervisor")
    return changes


def new_image(form: CreateForm) -> NewImage:
    """The image that a form describes."""
    return NewImage(
        owner=form.user_name,
        name=form.name,
        hypervisors=form.hypervisor.words,
        description=form.description,
        os_variant=form.os_variant,
        os_type=form.os_type,
        os_arch=form.os_arch,
        expires=form.expires.time,
        read_only=form.read_only,
        unauthenticated_access=form.unauthenticated_access,
    )
