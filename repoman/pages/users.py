"""Users: the list, and each one's page."""

from __future__ import annotations

from urllib.parse import urlencode

from twisted.web.template import Tag

from repoman.model import User
from repoman.pages.answer import Answer, page
from repoman.pages.markup import Content, area, badge, el, facts, field, form, link, shortened, size
from repoman.pages.tokens import Tokens
from repoman.policy import authorize, identified, may
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes

PAGE = 100
"""Users on one page."""

MOST_GROUPS = 200
"""The most groups that a user's page names."""


def add_routes(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    """``/users`` and ``/user/NAME``, to look at."""
    users = repository.users

    @routes.add("GET", "/users")
    async def listing(ask: Ask) -> Answer:
        text, after = ask.query("q") or "", ask.query("after") or ""
        found = await users.accounts(ask.caller, text=text, after=after, limit=PAGE + 1)
        new = link("/users/new", "New user", class_="button")
        following = None
        if len(found) > PAGE:
            query = urlencode({"q": text, "after": found[PAGE - 1].user_name})
            following = el("nav", link(f"/users?{query}", "Next page", rel="next"), class_="pages",
                           aria_label="Pages")  # fmt: skip
        return page(
            ask, "Users", _search(text), _table(ask, found[:PAGE]), following,
            beside=new if may("user.create", ask.caller) else None,
        )  # fmt: skip

    @routes.add("GET", "/users/new")
    async def blank(ask: Ask) -> Answer:
        authorize("user.create", ask.caller)
        token = tokens.issue(ask.caller, "/users/new")
        content = form("/users/new", token, el("div", _new_fields(), class_="fields"),
                       button="Create")  # fmt: skip
        return page(ask, "New user", el("section", content))

    @routes.add("GET", "/user/<name>")
    async def show(ask: Ask, name: str) -> Answer:
        identified(ask.caller)
        user = await users.find(ask.caller, name)
        images = link(f"/all?{urlencode({'owner': name})}", "Images that I may see")
        return page(
            ask, name, el("section", facts(_about(ask, user)), el("p", images)),
            _changing(ask, user), _deleting(ask, user),
            beside=badge("suspended", "bad") if user.suspended else None,
        )  # fmt: skip

    def _changing(ask: Ask, user: User) -> Content:
        if not may("user.modify", ask.caller, user):
            return None
        path = f"/user/{user.user_name}/change"
        token = tokens.issue(ask.caller, path)
        wanted = el("input", type="hidden", name="suspended", value=str(not user.suspended).lower())
        return el(
            "section", el("h2", "Change"),
            form(path, token, el("div", _fields(user), class_="fields"), button="Save"),
            el("hr"),
            form(path, token, wanted, kind="quiet" if user.suspended else "danger",
                 button="End the suspension" if user.suspended else "Suspend"),
        )  # fmt: skip

    def _deleting(ask: Ask, user: User) -> Content:
        if not may("user.delete", ask.caller, user) or user.id == identified(ask.caller).id:
            return None
        path = f"/user/{user.user_name}/delete"
        typed = field("typed", f"Type {user.user_name} to delete this user", required=True,
                      autocomplete="off", pattern=user.user_name)  # fmt: skip
        return el(
            "section", el("h2", "Delete"),
            el("p", "All images of the user, and their files, go as well, at once and for good."),
            form(path, tokens.issue(ask.caller, path), typed, button="Delete", kind="danger"),
        )  # fmt: skip


def _search(text: str) -> Tag:
    return el(
        "form",
        el("p", el("label", "Search", for_="q", class_="unseen"),
           el("input", id="q", name="q", type="search", value=text, placeholder="A name"),
           el("button", "Search", class_="quiet"), class_="bar"),
        action="/users", role="search", class_="search",
    )  # fmt: skip


def _table(ask: Ask, found: list[User]) -> Tag:
    if not found:
        return el("p", "No user is like that.", class_="empty")
    return el("ul", [_row(ask, user) for user in found], class_="images users")


def _row(ask: Ask, user: User) -> Tag:
    private = may("user.see_private", ask.caller, user)
    return el(
        "li",
        el("div", link(f"/user/{user.user_name}", user.user_name, class_="name"),
           badge("suspended", "bad") if user.suspended else None,
           badge("administrator") if user.is_admin else None),
        el("p", shortened(user.full_name), class_="about") if user.full_name else None,
        el("p", el("span", shortened(", ".join(g for g in user.groups if g != "users"))),
           el("span", size(user.used) if private else ""),
           el("span", _quota(user) if private else ""), class_="meta"),
    )  # fmt: skip


def _quota(user: User) -> str:
    return "usual quota" if user.quota is None else f"of {size(user.quota)}"


def _about(ask: Ask, user: User) -> list[tuple[str, Content]]:
    rows: list[tuple[str, Content]] = [("Full name", user.full_name or "–")]
    if may("user.see_private", ask.caller, user):
        limit = "the usual quota" if user.quota is None else size(user.quota)
        rows += [
            ("E-mail address", user.email or "–"),
            ("Distinguished names", [el("div", el("code", dn)) for dn in user.client_dns]),
            ("Files take", f"{size(user.used)} of {limit}"),
        ]
    groups = [[link(f"/group/{name}", name), " "] for name in user.groups[:MOST_GROUPS]]
    if len(user.groups) > MOST_GROUPS:
        groups.append([f"... and {len(user.groups) - MOST_GROUPS} more"])
    permissions = ", ".join(sorted(user.permissions)) or "none"
    return [*rows, ("Groups", groups or "none"), ("Permissions", permissions)]


def _fields(user: User) -> list[Tag]:
    return [
        field("user_name", "Name", user.user_name, required=True, maxlength=100),
        field("full_name", "Full name", user.full_name),
        field("email", "E-mail address", user.email, type="email"),
        field("quota", "Quota", "" if user.quota is None else str(user.quota),
              hint="bytes, or as in 500GiB; empty for the usual one"),
        area("client_dns", "Distinguished names", "\n".join(user.client_dns),
             hint="one on each line, the main one first"),
    ]  # fmt: skip


def _new_fields() -> list[Tag]:
    return [
        field("user_name", "Name", required=True, maxlength=100,
              hint="letters, digits, _ and -"),
        field("cert_dn", "Distinguished name", required=True,
              hint="as in /C=CA/O=Grid/CN=Some Body"),
        field("full_name", "Full name"),
        field("email", "E-mail address", type="email"),
        field("groups", "Groups besides users", hint="with commas"),
        field("quota", "Quota", hint="bytes, or as in 500GiB; empty for the usual one"),
    ]  # fmt: skip
