"""Uploading from the browser: the page; the script on it speaks the API's resumable protocol."""

from __future__ import annotations

from attrs import frozen
from twisted.web.template import Tag

from repoman.model import Caller, Image, ImageRef, Upload
from repoman.pages.answer import Answer, page, see_other
from repoman.pages.image import file_path
from repoman.pages.images import image_path
from repoman.pages.markup import Content, copied, el, link, moment, size
from repoman.pages.posting import read_post
from repoman.pages.tokens import Tokens
from repoman.policy import forbid_changes_to_read_only
from repoman.repository import Repository
from repoman.resources.asking import Ask, Routes
from repoman.wire import Urls


@frozen(kw_only=True)
class ForgetForm:
    """Which upload to give up."""

    upload: str


def add_routes(routes: Routes, repository: Repository, tokens: Tokens) -> None:
    """``/image/OWNER/NAME/upload``."""
    one = "/image/<owner>/<name>/upload"

    @routes.add("GET", one)
    async def show(ask: Ask, owner: str, name: str) -> Answer:
        ref = ImageRef(owner, name)
        image = await repository.images.find(ask.caller, ref, "image.write_bytes")
        forbid_changes_to_read_only(image)
        begun = await repository.uploads.listing(ask.caller)
        here = [u for u in begun if (u.owner, u.image) == (image.owner, image.name)]
        path = image_path(image)
        return page(
            ask, f"Upload to {image.owner}/{image.name}",
            _unfinished(ask.caller, tokens, path, here), _form(image, ask.urls),
            el("noscript", _by_hand(image, ask.urls)),
            el("p", link(path, "Back to the image")),
        )  # fmt: skip

    @routes.add("POST", one)
    async def forget(ask: Ask, owner: str, name: str) -> Answer:
        form = await read_post(ask, tokens, ForgetForm)
        await repository.uploads.delete(ask.caller, form.upload)
        return see_other(f"/image/{owner}/{name}/upload")


def _form(image: Image, urls: Urls) -> Tag:
    places = [
        el("option", h + (", which replaces its file" if h in image.files else ""),
           value=file_path(image, h, urls))
        for h in image.hypervisors
    ]  # fmt: skip
    return el(
        "section",
        el("form",
           el("p", el("label", "For", for_="place"), el("select", places, id="place", name="place"),
              class_="field"),
           el("p", el("label", "File", for_="file"),
              el("input", type="file", id="file", name="file", required=True), class_="field"),
           el("p", el("button", "Upload"),
              el("button", "Pause", type="button", name="pause", class_="quiet", hidden=True),
              class_="actions"),
           el("progress", max=1, value=0, aria_label="Uploaded", hidden=True),
           el("p", "", class_="count"), el("p", "", class_="said", role="status"),
           id="upload", data_page=image_path(image)),
        hidden=True,
    )  # fmt: skip


def _unfinished(caller: Caller, tokens: Tokens, path: str, uploads: list[Upload]) -> Content:
    if not uploads:
        return None
    token = tokens.issue(caller, f"{path}/upload")
    return el(
        "section", el("h2", "Unfinished"),
        el("p", "To go on with an upload, choose the same file again."),
        el("ul", [_one(u, f"{path}/upload", token) for u in uploads], class_="files"),
    )  # fmt: skip


def _one(upload: Upload, action: str, token: str) -> Tag:
    whole = "" if upload.length is None else f" of {size(upload.length)}"
    return el(
        "li",
        el("div", el("strong", upload.hypervisor), el("span", f"{size(upload.offset)}{whole}"),
           el("span", "kept until ", moment(upload.keep_until)),
           el("form", el("input", type="hidden", name="upload", value=upload.id),
              el("input", type="hidden", name="token", value=token),
              el("button", "Give up", class_="quiet"), method="post", action=action),
           class_="file"),
    )  # fmt: skip


def _by_hand(image: Image, urls: Urls) -> Tag:
    hypervisor = image.hypervisors[0]
    proxy = '"${X509_USER_PROXY:-/tmp/x509up_u$(id -u)}"'
    line = (
        f"curl --fail --upload-file FILE --cert {proxy} --key {proxy} "
        f"--capath /etc/grid-security/certificates {urls.image_file(image, hypervisor)}"
    )
    return el(
        "section",
        el("p", "Uploading from the browser needs JavaScript. From a terminal it goes like this:"),
        copied(line, "the line"),
    )  # fmt: skip
