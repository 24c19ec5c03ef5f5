"""Groups: the list, and each one's page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from twisted.web.template import Tag

from repoman.model import ADMINS, PERMISSIONS, Group
from repoman.pages.answer import Answer, page
from repoman.pages.markup import Content, badge, choice, el, field, form, link, names_list
from repoman.pages.tokens import Tokens
from repoman.policy import identified, may
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes

PAGE = 100
"""Groups on one page."""

MOST_MEMBERS = 200
"""The most members that a page names."""


def add_routes(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    """``/groups`` and ``/group/NAME``, to look at."""

    @routes.add("GET", "/groups")
    async def listing(ask: Ask) -> Answer:
        found = await repository.groups.listing(ask.caller, ask.query("after") or "", PAGE + 1)
        new = following = None
        if len(found) > PAGE:
            query = urlencode({"after": found[PAGE - 1].name})
            following = el("nav", link(f"/groups?{query}", "Next page", rel="next"), class_="pages",
                           aria_label="Pages")  # fmt: skip
        if may("group.create", ask.caller):
            new = el("section", el("h2", "New group"),
                     form("/groups", tokens.issue(ask.caller, "/groups"),
                          field("name", "Name", required=True, maxlength=100,
                                hint="letters, digits, _ and -"), button="Create"))  # fmt: skip
        listed = el("ul", [_row(g) for g in found[:PAGE]], class_="images users")
        return page(ask, "Groups", listed, following, new)

    @routes.add("GET", "/group/<name>")
    async def show(ask: Ask, name: str) -> Answer:
        identified(ask.caller)
        group = await repository.groups.find(ask.caller, name)
        known = await repository.users.known(ask.caller)
        return page(
            ask, name, _members(ask, group), _permissions(ask, group), _ending(ask, group),
            names_list("users", known.users),
            beside=badge("protected") if group.protected else None,
        )  # fmt: skip

    def _members(ask: Ask, group: Group) -> Tag:
        path = f"/group/{group.name}/members"
        may_change = may("group.modify_membership", ask.caller)
        token = tokens.issue(ask.caller, path) if may_change else ""
        return _section(
            "Members", "user", group.users[:MOST_MEMBERS], path, token,
            _membership(path, token, len(group.users) - MOST_MEMBERS) if token else None,
        )  # fmt: skip

    def _permissions(ask: Ask, group: Group) -> Tag:
        path = f"/group/{group.name}/permissions"
        may_change = may("group.modify_permissions", ask.caller) and group.name != ADMINS
        token = tokens.issue(ask.caller, path) if may_change else ""
        missing = [(p, p) for p in PERMISSIONS if p not in group.permissions]
        more = None
        if may_change and missing:
            more = form(path, token, choice("permission", "New permission", missing, None),
                        button="Permit", kind="quiet")  # fmt: skip
        return _section("Permissions", "permission", group.permissions, path, token, more)

    def _ending(ask: Ask, group: Group) -> list[Content]:
        content: list[Content] = []
        path = f"/group/{group.name}"
        if may("group.modify", ask.caller) and not group.protected:
            name = field("name", "New name", group.name, required=True, maxlength=100)
            action = f"{path}/change"
            content.append(el("section", el("h2", "Name"),
                              form(action, tokens.issue(ask.caller, action), name,
                                   button="Rename", kind="quiet")))  # fmt: skip
        if may("group.delete", ask.caller) and not group.protected:
            typed = field("typed", f"Type {group.name} to delete this group", required=True,
                          autocomplete="off", pattern=group.name)  # fmt: skip
            action = f"{path}/delete"
            content.append(el("section", el("h2", "Delete"),
                              el("p", "What was shared with the group no longer is."),
                              form(action, tokens.issue(ask.caller, action), typed,
                                   button="Delete", kind="danger")))  # fmt: skip
        return content


def _row(group: Group) -> Tag:
    return el(
        "li",
        el("div", link(f"/group/{group.name}", group.name, class_="name"),
           badge("protected") if group.protected else None),
        el("p", ", ".join(group.permissions) or "permits nothing", class_="about"),
        el("p", el("span"), el("span"), el("span", _count(len(group.users))), class_="meta"),
    )  # fmt: skip


def _membership(path: str, token: str, unnamed: int) -> list[Content]:
    """How somebody becomes a member, or is no longer one of those who are not named."""
    name: dict[str, Any] = {"list": "users", "required": True, "autocomplete": "off"}
    content: list[Content] = [
        form(path, token, field("user", "New member", **name), button="Add", kind="quiet")
    ]
    if unnamed > 0:
        leaving = field("user", "Take out a member", id="leaving", **name)
        end = el("input", type="hidden", name="end", value="true")
        content = [el("p", f"... and {unnamed} more."), *content,
                   form(path, token, leaving, end, button="Take out", kind="quiet")]  # fmt: skip
    return content


def _count(members: int) -> str:
    return f"{members} member" + ("" if members == 1 else "s")


def _section(
    title: str, kind: str, names: tuple[str, ...], action: str, token: str, more: Content
) -> Tag:
    """Names, each with a button that ends it where there is a token, and how to add more."""
    listed = [_name(kind, name, action, token) for name in names]
    return el(
        "section", el("h2", title),
        el("ul", listed, class_="shares") if names else el("p", "None.", class_="quiet"),
        more,
    )  # fmt: skip


def _name(kind: str, name: str, action: str, token: str) -> Tag:
    shown: Content = link(f"/user/{name}", name) if kind == "user" else name
    if not token:
        return el("li", el("span", shown))
    return el(
        "li", el("span", shown),
        el("form", el("input", type="hidden", name=kind, value=name),
           el("input", type="hidden", name="token", value=token),
           el("button", "End", name="end", value="true", class_="quiet small",
              aria_label=f"Take {name} out"),
           method="post", action=action),
    )  # fmt: skip
