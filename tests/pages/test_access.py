"""Every page, for everybody: at two widths, light and dark, with and without JavaScript."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.pages.conftest import Browse
from tests.server import ROOT, Daemon, Person

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

PICTURES = os.environ.get("REPOMAN_PICTURES")
"""Where pictures of all pages go; then those of docs/ are made anew, too."""

IN_DOCS = {
    "owner-images-wide-light", "admin-activity-wide-light",
    "owner-image-phone-dark", "nobody-certificate-phone-light",
}  # fmt: skip

OWNER = {
    "images": "/", "filtered": "/?q=linux&hypervisor=kvm&sort=-size", "none": "/?q=nothing-is-so",
    "image": "/image/yamada/alma9-root", "empty": "/image/yamada/scratch", "me": "/me",
    "protected": "/image/yamada/reference", "new": "/new",
    "upload": "/image/yamada/alma9-root/upload", "missing": "/image/yamada/never",
    "public": "/public", "shared": "/shared",
}  # fmt: skip
ADMIN = {

    "all": "/all", "image": "/image/yamada/alma9-root", "users": "/users", "user": "/user/yamada",
    "new-user": "/users/new", "groups": "/groups", "group": "/group/atlas",
    "activity": "/activity", "audit": "/activity/audit",
}  # fmt: skip
NOBODY = {"images": "/", "certificate": "/certificate", "image": "/image/yamada/alma9-root",
          "refused": "/me"}  # fmt: skip
EVERY = [
    (role, name)
    for role, pages in (("owner", OWNER), ("admin", ADMIN), ("nobody", NOBODY))
    for name in pages
]

ABOUT = {
    "alma9-root": "AlmaLinux 9 with ROOT 6.36 and the experiment's software, for batch nodes.",
    "alma9-gpu": "The same with CUDA, for the machines in room 12.",
    "centos7-legacy": "Only for the reprocessing of 2016 data. Ask before you change anything.",
    "debian12-slim": "Smallest thing that boots.",
    "reference": "What the validation runs against.",
    "scratch": "",
}


@pytest.fixture(scope="module")
def people(daemon: Daemon) -> dict[str, Person]:
    owner = daemon.newcomer("yamada", full_name="Yamada Tarō", email="yamada@example.org")
    friend = daemon.newcomer("lindqvist", full_name="Åsa Lindqvist")
    daemon.admin.ask("POST", "/api/groups", form={"name": "atlas", "users": "yamada,lindqvist"})
    for number, (name, about) in enumerate(ABOUT.items(), 3):
        form = {
            "name": name, "description": about, "os_type": "Linux", "os_arch": "x86_64",
            "os_variant": name.partition("-")[0], "hypervisor": "kvm,xen" if number % 2 else "kvm",
            "unauthenticated_access": number == 3,
        }  # fmt: skip
        assert owner.ask("POST", "/api/images", form=form).status == 201
        if about:
            path = f"/api/images/raw/yamada/kvm/{name}"
            assert owner.ask("PUT", path, body=os.urandom(1234567 * number)).status == 200
    owner.ask("POST", "/api/images/alma9-root/share/user/lindqvist")
    owner.ask("POST", "/api/images/alma9-root/share/group/atlas")
    owner.ask("POST", "/api/images/alma9-gpu/share/group/atlas")
    owner.ask("POST", "/api/images/centos7-legacy", form={"expires": "2020-01-01"})
    owner.ask("POST", "/api/images/reference", form={"read_only": "true"})
    friend.ask("POST", "/api/images", form={"name": "plasma-sim", "description": "Shared"})
    friend.ask("POST", "/api/images/plasma-sim/share/user/yamada")
    friend.ask("POST", "/api/images", form={"name": "plasma-old", "description": "Offered"})
    friend.ask("POST", "/api/images/plasma-old", form={"owner": "yamada"})
    owner.ask("POST", "/api/images/debian12-slim", form={"owner": "lindqvist"})
    headers = {"Upload-Complete": "?0", "Upload-Length": "9000000"}
    answer = owner.ask("POST", "/api/images/raw/yamada/kvm/alma9-root", headers=headers)
    assert answer.status == 201
    return {"owner": owner, "admin": daemon.admin, "nobody": daemon.nobody}


def path_of(role: str, name: str) -> str:
    return {"owner": OWNER, "admin": ADMIN, "nobody": NOBODY}[role][name]


def picture(page: Any, name: str) -> None:
    if PICTURES:
        whole = {"full_page": True, "scale": "css"}
        page.screenshot(path=Path(PICTURES) / f"{name}.png", **whole)
        if name in IN_DOCS:
            page.screenshot(path=ROOT / "docs" / "pictures" / f"{name}.png", scale="css")


@pytest.mark.parametrize(("role", "name"), EVERY)
def test_everybody_can_use_it(
    browse: Browse, people: dict[str, Person], role: str, name: str
) -> None:
    page = None
    for phone in (False, True):
        page = browse(people[role], path_of(role, name), phone=phone)
        for dark in (False, True):
            page.emulate_media(color_scheme="dark" if dark else "light")
            looks = f"{'phone' if phone else 'wide'}-{'dark' if dark else 'light'}"
            folded = page.locator("details:not([open])").element_handles()
            for details in folded:
                details.evaluate("d => { d.open = true }")
            found = axe.Axe().run(page).response["violations"]
            serious = [v for v in found if v["impact"] in ("serious", "critical")]
            told = [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in serious]
            assert told == [], looks
            # Nothing sticks out: one scrolls down, never sideways.
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), looks
            for details in folded:
                details.evaluate("d => { d.open = false }")
            picture(page, f"{role}-{name}-{looks}")


@pytest.mark.parametrize(("role", "name"), EVERY)
def test_it_reads_the_same_without_javascript(
    browse: Browse, people: dict[str, Person], role: str, name: str
) -> None:
    texts = [
        browse(people[role], path_of(role, name), javascript=on).locator("main").inner_text()
        for on in (True, False)
    ]
    if name not in ("upload", "activity"):  # whose numbers move
        assert texts[0].replace("Copy\n", "").split() == texts[1].split()
    assert len(texts[1]) > 20
