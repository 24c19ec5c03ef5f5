"""A new image."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.web.template import Tag

from repoman.errors import Conflict, Invalid, RepomanError
from repoman.model import DEFAULT_HYPERVISOR
from repoman.pages.answer import Answer, page, see_other
from repoman.pages.changes import TEXTS
from repoman.pages.images import image_path
from repoman.pages.markup import area, el, field, form, notice
from repoman.pages.offers import NAME_PATTERN
from repoman.pages.owner import audience
from repoman.pages.posting import read_fields_of_post
from repoman.pages.tokens import Tokens
from repoman.policy import authorize
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.resources.forms import structure
from repoman.resources.images import CreateForm, new_image
from repoman.wire import status_of

USUAL = {"hypervisor": DEFAULT_HYPERVISOR}


def add_routes(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    """``/new``."""

    @routes.add("GET", "/new")
    async def blank(ask: Ask) -> Answer:
        authorize("image.create", ask.caller)
        return shown(ask, USUAL)

    @routes.add("POST", "/new")
    async def create(ask: Ask) -> Answer:
        fields = await read_fields_of_post(ask, tokens, TEXTS)
        try:
            new = new_image(structure(fields, CreateForm))
            image = await repository.images.create(ask.caller, new)
        except (Invalid, Conflict) as mistake:
            return shown(ask, {**fields}, mistake)
        return see_other(f"{image_path(image)}/upload")

    def shown(
        ask: Ask, given: Mapping[str, str | None], mistake: RepomanError | None = None
    ) -> Answer:
        complaint = notice(mistake.message, kind="bad") if mistake else None
        content = form("/new", tokens.issue(ask.caller, "/new"), _fields(given), button="Create")
        return page(
            ask, "New image", complaint, el("section", content),
            status=status_of(mistake) if mistake else 200,
        )  # fmt: skip


def _fields(given: Mapping[str, str | None]) -> Tag:
    value = given.get
    return el(
        "div",
        field("name", "Name", value("name"), required=True, pattern=NAME_PATTERN, maxlength=100,
              hint="letters, digits, and _ . -"),
        field("hypervisor", "Hypervisors", value("hypervisor"), required=True,
              hint="with commas, for example kvm, xen"),
        area("description", "Description", value("description")),
        field("os_type", "System", value("os_type"), hint="for example Linux"),
        field("os_variant", "Variant", value("os_variant"), hint="for example AlmaLinux 9"),
        field("os_arch", "Architecture", value("os_arch"), hint="for example x86_64"),
        field("expires", "Expires (UTC)", value("expires"), type="datetime-local",
              hint="empty for never"),
        audience(value("unauthenticated_access")),
        class_="fields",
    )  # fmt: skip
