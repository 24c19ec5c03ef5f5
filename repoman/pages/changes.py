"""What owners' forms do."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from repoman.errors import Invalid
from repoman.model import ImageRef
from repoman.pages.answer import Answer, see_other
from repoman.pages.images import image_path
from repoman.pages.posting import read_post
from repoman.pages.tokens import Tokens
from repoman.policy import may
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.images import ChangeForm, image_changes

TEXTS = frozenset({"description", "os_type", "os_variant", "os_arch"})
"""Fields that are nothing rather than empty."""


@frozen(kw_only=True)
class ShareForm:
    """Whom to share with, or no longer."""

    user: str = ""
    group: str = ""
    end: bool = False


@frozen(kw_only=True)
class DeleteForm:
    """The name, typed, of what is to be deleted."""

    typed: str


def check_typed(typed: str, name: str) -> None:
    """Do nothing, if the name was typed.

    :raises Invalid: it was not.
    """
    if typed.strip() != name:
        raise Invalid(f"To delete {name}, type its name; nothing was deleted.", field="typed")


def add_routes(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    """What is posted below ``/image/OWNER/NAME``."""
    images, one = repository.images, "/image/<owner>/<name>"

    @routes.add("POST", f"{one}/change")
    async def change(ask: Ask, owner: str, name: str) -> Answer:
        form = await read_post(ask, tokens, ChangeForm, TEXTS)
        changes: dict[str, Any] = image_changes(form)
        image = await images.change(ask.caller, ImageRef(owner, name), changes)
        if changes.get("owner", image.owner) != image.owner:
            return see_other("/")  # where offers are shown
        return see_other(image_path(image) if may("image.look", ask.caller, image) else "/")

    @routes.add("POST", f"{one}/share")
    async def share(ask: Ask, owner: str, name: str) -> Answer:
        form = await read_post(ask, tokens, ShareForm)
        if bool(form.user) == bool(form.group):
            raise Invalid("Name a user or a group to share with.", field="user")
        act = images.unshare if form.end else images.share
        await act(ask.caller, ImageRef(owner, name), user=form.user, group=form.group)
        return see_other(f"/image/{owner}/{name}")

    @routes.add("POST", f"{one}/delete")
    async def delete(ask: Ask, owner: str, name: str) -> Answer:
        form = await read_post(ask, tokens, DeleteForm)
        check_typed(form.typed, name)
        await images.delete(ask.caller, ImageRef(owner, name))
        return see_other("/")
