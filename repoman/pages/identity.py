"""Who the server thinks somebody is, and how to come with a certificate."""

from __future__ import annotations

from attrs import frozen
from twisted.web.template import Tag

from repoman.model import Caller, Identity, User
from repoman.pages.answer import Answer, page, see_other
from repoman.pages.markup import Content, el, facts, field, form, link, moment, notice, size
from repoman.pages.posting import read_post
from repoman.pages.steps import IN_BROWSERS, MAKE_FILE
from repoman.pages.tokens import Tokens
from repoman.policy import identified, may
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes


@frozen(kw_only=True)
class OwnForm:
    """What people can change of themselves."""

    full_name: str | None = None
    email: str | None = None


def add_routes(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    """``/me`` and ``/certificate``."""

    @routes.add("GET", "/me")
    async def me(ask: Ask) -> Answer:
        user = identified(ask.caller)
        return page(ask, f"You are {user.user_name}", _about(ask.caller, user), _own(ask, user))

    @routes.add("POST", "/me")
    async def change(ask: Ask) -> Answer:
        form = await read_post(ask, tokens, OwnForm, {"full_name", "email"})
        changes = {"full_name": form.full_name, "email": form.email}
        await repository.users.change(ask.caller, identified(ask.caller).user_name, changes)
        return see_other("/me")

    @routes.add("GET", "/certificate")
    async def certificate(ask: Ask) -> Answer:
        return page(ask, "Your certificate in the browser", refusal(ask.caller), _help())

    def _own(ask: Ask, user: User) -> Content:
        if not may("user.modify_self", ask.caller, user):
            return None
        return el(
            "section", el("h2", "Change"),
            form("/me", tokens.issue(ask.caller, "/me"),
                 field("full_name", "Full name", user.full_name, autocomplete="name"),
                 field("email", "E-mail address", user.email, type="email", autocomplete="email"),
                 button="Save"),
        )  # fmt: skip


def refusal(caller: Caller, *more: Content) -> Tag | None:
    """Why somebody is nobody in particular; nothing for a user."""
    if caller.user is not None:
        return None
    return notice(el("p", el("strong", "The server does not know you. "), caller.reason), *more)


def _about(caller: Caller, user: User) -> Tag:
    limit = "the usual quota" if user.quota is None else size(user.quota)
    rows: list[tuple[str, Content]] = [
        ("Full name", user.full_name or "–"),
        ("E-mail address", user.email or "–"),
        ("Your files take", f"{size(user.used)} of {limit}"),
        ("Groups", ", ".join(user.groups) or "none"),
        ("Permissions", ", ".join(sorted(user.permissions)) or "none"),
    ]
    if caller.identity is not None:
        rows[:0] = _credential(caller.identity)
    return el("section", facts(rows))


def _credential(identity: Identity) -> list[tuple[str, Content]]:
    kind = "A certificate" if not identity.proxies else f"{identity.proxies} proxies above it"
    return [
        ("Distinguished name", el("code", identity.subject)),
        ("Issued by", el("code", identity.issuer)),
        *_below(identity),
        ("Valid until", moment(identity.not_after)),
        ("Came with", kind + (", limited" if identity.limited else "")),
    ]


def _below(identity: Identity) -> list[tuple[str, Content]]:
    """What an administrator needs to know of a CA whose name alone does not count."""
    known = identity.issuer_is_known or identity.anchor is None
    return [] if known else [("A CA below", el("code", identity.anchor))]


def _help() -> list[Content]:
    steps = [
        el("li", el("p", "Put certificate and key into one file. ",
                    "You will be asked for the passphrase of your key, and for a new one."),
           el("pre", el("code", MAKE_FILE), tabindex="0")),
        el("li", el("p", "Give it to your browser."), facts(IN_BROWSERS)),
        el("li", el("p", "Delete ", el("code", "me.p12"), ", start the browser anew, open ",
                    link("/", "the repository"), " and choose your certificate when asked.")),
    ]  # fmt: skip
    return [
        el("p", "This repository knows people by the certificate that a certificate authority of "
           "the grid gave them. Programs bring a proxy of it; browsers bring the certificate "
           "itself, from a PKCS#12 file."),
        el("ol", steps, class_="steps"),
        el("p", "If you are still not known, the reason stands above, with the distinguished name "
           "that arrived. An administrator registers you under exactly this name."),
        el("p", "If the browser shows an error about the certificate instead of a page, then it "
           "has expired, was revoked, or its authority is not trusted here."),
    ]  # fmt: skip
