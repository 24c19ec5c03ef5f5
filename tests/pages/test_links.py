"""Links on other sites' pages to the bytes of images, as people click on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages.conftest import Browse
from tests.pages.test_forgery import EvilSite
from tests.server import Daemon, Person

CONTENT = b"the image's bytes " * 1000


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[EvilSite]:
    site = EvilSite()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture(scope="module")
def owner(daemon: Daemon) -> Person:
    owner = daemon.newcomer()
    owner.ask("POST", "/api/images", form={"name": "disk"})
    assert owner.ask("PUT", "/api/images/raw/disk", body=CONTENT).status == 200
    return owner


@pytest.mark.parametrize("keys", [[], ["Alt"]], ids=["clicked", "saved"])
@pytest.mark.parametrize("kind", ["", "download", "target=_blank"])
def test_a_link_on_another_sites_page_gives_the_bytes(
    browse: Browse, owner: Person, elsewhere: EvilSite, keys: list[str], kind: str
) -> None:
    path = f"/api/images/raw/{owner.name}/disk"
    elsewhere.html = f'<a {kind} href="{owner.daemon.url}{path}">The image</a>'
    page = browse(owner)
    page.goto(elsewhere.url)
    with page.expect_download() as found:
        # With Alt Chromium does what "save link as" in its menu does, and asks for no name.
        page.get_by_role("link").click(modifiers=keys)
    assert found.value.failure() is None
    assert Path(found.value.path()).read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ["iframe src", "object data", "embed src"])
def test_a_foreign_page_still_shows_nothing_of_it(
    browse: Browse, owner: Person, elsewhere: EvilSite, tag: str
) -> None:
    url = f"{owner.daemon.url}/api/images/raw/{owner.name}/disk"
    page = browse(owner, expected=None)
    elsewhere.html = f'<{tag}="{url}">'
    with page.expect_response(url) as answered:
        page.goto(elsewhere.url)
    assert answered.value.status == 403
