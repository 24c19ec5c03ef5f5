"""The forms with which owners change an image."""

from __future__ import annotations

from twisted.web.template import Tag

from repoman.model import Caller, Image
from repoman.pages.images import image_path
from repoman.pages.markup import Content, area, choice, el, field, form, names_list
from repoman.pages.offers import NAME_PATTERN
from repoman.pages.tokens import Tokens
from repoman.policy import may
from repoman.repository.users import Known

AT_ONCE = "it counts on their quota then, is shared with nobody and not public"
OFFERED = "they have 30 days to accept it; then it is theirs, shared with nobody and not public"
"""What follows from a new owner, and when."""


MOST_SHARES = 200
"""The most users and groups that the page of an image they share names."""


def owner_forms(caller: Caller, tokens: Tokens, image: Image, known: Known) -> list[Content]:
    """Those that the caller may use.

    :param known: names to complete fields with.
    """
    path = image_path(image)
    tokens_of = {a: tokens.issue(caller, f"{path}/{a}") for a in ("change", "share", "delete")}
    content: list[Content] = []
    if may("image.share", caller, image):
        content.append(_sharing(image, path, tokens_of["share"], known))
    if may("image.modify", caller, image):
        content.append(_changing(caller, image, f"{path}/change", tokens_of["change"]))
    if may("image.delete", caller, image) and not image.read_only:
        content.append(_deleting(image, f"{path}/delete", tokens_of["delete"]))
    if content:
        content += [names_list("users", known.users), names_list("groups", known.groups)]
    return content


def _sharing(image: Image, path: str, token: str, known: Known) -> Tag:
    shares = [("user", n) for n in image.shared_users] + [("group", n) for n in image.shared_groups]
    action = f"{path}/share"
    return el(
        "section", el("h2", "Sharing"),
        el("ul", [_share(action, token, kind, name) for kind, name in shares[:MOST_SHARES]],
           class_="shares")
        if shares else el("p", "Shared with nobody.", class_="quiet"),
        el("p", f"... and {len(shares) - MOST_SHARES} more: repoman list-images {image.name} "
           "names them.") if len(shares) > MOST_SHARES else None,
        el("div",
           form(action, token, field("user", "Share with a user", list="users", required=True,
                                     autocomplete="off"), button="Share", kind="quiet"),
           form(action, token, field("group", "Share with a group", list="groups", required=True,
                                     autocomplete="off"), button="Share", kind="quiet"),
           class_="fields"),
    )  # fmt: skip


def _share(action: str, token: str, kind: str, name: str) -> Tag:
    label = f"{kind} {name}"
    return el(
        "li", el("span", label),
        el("form", el("input", type="hidden", name=kind, value=name),
           el("input", type="hidden", name="token", value=token),
           el("button", "End", name="end", value="true", class_="quiet small",
              aria_label=f"End sharing with {label}"),
           method="post", action=action),
    )  # fmt: skip


def _changing(caller: Caller, image: Image, action: str, token: str) -> Tag:
    if image.read_only:
        content = [_protecting(image, action, token)]
    else:
        content = [
            _opened("Description and system", _describing(caller, image, action, token)),
            _opened("Expiry", _expiring(image, action, token)),
            _opened("Name", _renaming(image, action, token)),
            _giving(caller, image, action, token),
            _opened("Protection", _protecting(image, action, token)),
        ]  # fmt: skip
    return el("section", el("h2", "Change"), content, class_="change")


def _opened(title: str, content: Content) -> Tag:
    return el("details", el("summary", title), content)


def _describing(caller: Caller, image: Image, action: str, token: str) -> Tag:
    hypervisors = field(
        "hypervisor", "Hypervisors", ", ".join(image.hypervisors), required=True,
        hint="with commas; the file of one that you take out is deleted",
    )  # fmt: skip
    public = audience(str(image.unauthenticated_access).lower())
    return form(
        action, token,
        el("div", area("description", "Description", image.description),
           field("os_type", "System", image.os_type),
           field("os_variant", "Variant", image.os_variant),
           field("os_arch", "Architecture", image.os_arch),
           hypervisors if may("image.arrange_files", caller, image) else None,
           public if may("image.publish", caller, image) else None,
           class_="fields"),
        button="Save",
    )  # fmt: skip


def audience(value: str | None) -> Tag:
    """Whether everybody may fetch an image."""
    whom = [("false", "those it is shared with"), ("true", "everybody: it is public")]
    return choice("unauthenticated_access", "Who may fetch it", whom, value)


def _expiring(image: Image, action: str, token: str) -> Tag:
    value = f"{image.expires:%Y-%m-%dT%H:%M}" if image.expires else ""
    moment = field("expires", "Expires (UTC)", value, type="datetime-local",
                   hint="empty for never; after it nobody gets the files")  # fmt: skip
    return form(action, token, moment, button="Save")


def _renaming(image: Image, action: str, token: str) -> Tag:
    name = field("name", "New name", image.name, required=True, pattern=NAME_PATTERN, maxlength=100,
                 hint="letters, digits, and _ . -; addresses change with it")  # fmt: skip
    return form(action, token, name, button="Rename")


def _giving(caller: Caller, image: Image, action: str, token: str) -> Content:
    at_once = may("image.give", caller, image)
    if not at_once and not may("image.offer", caller, image):
        return None
    owner = field("owner", "New owner", list="users", required=True, autocomplete="off",
                  hint=AT_ONCE if at_once else OFFERED)  # fmt: skip
    return _opened("Owner", form(action, token, owner, button="Give away" if at_once else "Offer"))


def _protecting(image: Image, action: str, token: str) -> Content:
    said = "It is read-only: nobody can change, replace or delete it." if image.read_only else (
        "A read-only image cannot be changed, replaced or deleted, by mistake or otherwise."
    )  # fmt: skip
    wanted = el("input", type="hidden", name="read_only", value=str(not image.read_only).lower())
    button = "End protection" if image.read_only else "Make read-only"
    return [el("p", said), form(action, token, wanted, button=button, kind="quiet")]


def _deleting(image: Image, action: str, token: str) -> Tag:
    typed = field(
        "typed", f"Type {image.name} to delete it", required=True, autocomplete="off",
        pattern=image.name.replace(".", "[.]"), spellcheck="false",
    )  # fmt: skip
    return el(
        "section", el("h2", "Delete"),
        el("p", "The image and its files go at once and for good."),
        form(action, token, typed, button="Delete", kind="danger"),
    )  # fmt: skip
