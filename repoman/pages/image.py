"""An image's page: all that is known of it, and how to get it."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

from twisted.web.template import Tag

from repoman.interfaces import Clock
from repoman.model import Caller, Image, ImageFile, ImageRef
from repoman.pages.answer import Answer, page
from repoman.pages.images import directory_path, image_path, marks
from repoman.pages.markup import Content, copied, el, facts, link, moment, size
from repoman.pages.owner import owner_forms
from repoman.pages.tokens import Tokens
from repoman.policy import may
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.wire import Urls

CHANGES = ("image.modify", "image.share", "image.delete")
"""Actions that the forms of an image's page are for."""


def add_routes(routes: Routes, repository: Repository, tokens: Tokens, clock: Clock) -> None:
    """``/image/OWNER/NAME``."""

    @routes.add("GET", "/image/<owner>/<name>")
    async def show(ask: Ask, owner: str, name: str) -> Answer:
        found = await repository.images.look(ask.caller, ImageRef(owner, name))
        badges = marks(found, clock())
        forms = await _forms(ask, found)
        title = f"{found.owner}/{found.name}"
        return page(
            ask, title, el("p", found.description, class_="about") if found.description else None,
            _files(ask, found), _ways(ask, found, clock()), _about(ask.caller, found), forms,
            beside=el("span", badges) if badges else None,
        )  # fmt: skip

    async def _forms(ask: Ask, image: Image) -> Content:
        if not any(may(action, ask.caller, image) for action in CHANGES):
            return None
        return owner_forms(ask.caller, tokens, image, await repository.users.known(ask.caller))


def file_path(image: Image, hypervisor: str, urls: Urls) -> str:
    """Where a file is, on this very server."""
    return urls.image_file(image, hypervisor).removeprefix(urls.https)


def _files(ask: Ask, image: Image) -> Tag:
    writes = may("image.write_bytes", ask.caller, image) and not image.read_only
    upload = link(f"{image_path(image)}/upload", "Upload a file", class_="button quiet")
    rows = [_file(ask, image, h, image.files.get(h)) for h in image.hypervisors]
    return el(
        "section", el("h2", "Files"), el("ul", rows, class_="files"),
        el("p", upload, class_="actions") if writes else None,
    )  # fmt: skip


def _file(ask: Ask, image: Image, hypervisor: str, stored: ImageFile | None) -> Tag:
    name = el("strong", hypervisor)
    if stored is None:
        return el("li", el("p", name, " ", el("span", "no file yet", class_="quiet")))
    fetch = None
    if may("image.read_bytes", ask.caller, image) and not stored.damaged:
        fetch = link(
            file_path(image, hypervisor, ask.urls), f"Download {size(stored.size)}",
            class_="button", aria_label=f"Download for {hypervisor}, {size(stored.size)}",
        )  # fmt: skip
    return el(
        "li",
        el("div", name, el("span", size(stored.size)), el("span", moment(stored.uploaded)),
           el("span", "damaged", class_="badge bad") if stored.damaged else None, fetch,
           class_="file"),
        el("p", "SHA-256", class_="quiet"),
        copied(stored.digests.sha256, f"SHA-256 of {hypervisor}"),
    )  # fmt: skip


def _ways(ask: Ask, image: Image, now: datetime) -> Tag | None:
    """Ready lines for a terminal, and where all that the owner publishes is."""
    if not image.files or not may("image.read_bytes", ask.caller, image):
        return None
    lines = [el("div", el("h3", name), copied(line, f"the {name} line"))
             for name, line in ready_lines(image, ask.urls)]  # fmt: skip
    return el("section", el("h2", "From a terminal"), lines, _directory(image, now))


def _directory(image: Image, now: datetime) -> Tag | None:
    """The way to all public images of the owner, if this is one that can be fetched."""
    if not image.unauthenticated_access or image.default_file is None or image.has_expired(now):
        return None
    all_of_owner = link(directory_path(image.owner), f"All that {image.owner} publishes")
    return el("p", all_of_owner, ", with checksums, as a directory for programs")


def ready_lines(image: Image, urls: Urls) -> list[tuple[str, str]]:
    """Programs, and what to say to each to get the default file."""
    hypervisor = image.hypervisors[0]
    stored = image.default_file
    if stored is not None:
        hypervisor = stored.hypervisor
    url, server = urls.image_file(image, hypervisor), urlsplit(urls.https)
    proxy = '"${X509_USER_PROXY:-/tmp/x509up_u$(id -u)}"'
    cas = "/etc/grid-security/certificates"
    # What is public may be at the store's address, where nobody is to show a proxy.
    shown = "--location" if image.unauthenticated_access else f"--cert {proxy} --key {proxy}"
    lines = [
        ("repoman", f"repoman --host {server.hostname} --port {server.port or 443} "
         f"get {image.owner}/{image.name}"),
        ("curl", f"curl --fail {shown} --output {image.name} --capath {cas} {url}"),
    ]  # fmt: skip
    if image.unauthenticated_access:
        public = urls.public_file(image)
        place = public.replace("__hypervisor__", hypervisor) if public else url
        trusting = "" if public else f" --ca-directory={cas}"
        lines.append(("wget", f"wget --output-document {image.name}{trusting} {place}"))
    return lines


def _about(caller: Caller, image: Image) -> Tag:
    rows: list[tuple[str, Content]] = [
        ("Owner", image.owner),
        ("System", " ".join(filter(None, (image.os_type, image.os_variant))) or "–"),
        ("Architecture", image.os_arch or "–"),
        ("Hypervisors", ", ".join(image.hypervisors)),
        ("Uploaded", moment(image.uploaded)),
        ("Changed", moment(image.modified)),
        ("Expires", moment(image.expires) if image.expires else "never"),
        ("Uploads so far", str(image.version)),
        ("UUID", el("code", image.uuid)),
    ]
    if may("image.see", caller, image):
        rows.append(("Who may see it", _audience(image)))
    return el("section", el("h2", "About"), facts(rows))


def _audience(image: Image) -> str:
    if image.unauthenticated_access:
        return "everybody: it is public"
    groups = [f"group {name}" for name in image.shared_groups]
    who = ["the owner", *image.shared_users, *groups, "administrators"]
    return f"{', '.join(who)}, and holders of image_modify"
