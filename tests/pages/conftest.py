"""A real browser for people with real certificates.

The fixture ``browse`` opens a window for somebody::

    def test_something(browse, daemon):
        page = browse(alice)                  # a playwright Page at "/", wide and light
        page = browse(alice, "/me", phone=True, dark=True, javascript=False)

A window whose page broke our own Content-Security-Policy, or whose script
failed, fails the test at its end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.server import Daemon, Person

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

Browse = Callable[..., Any]


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A server of the pages' own: they fill it with people and images."""
    with Daemon(tmp_path_factory.mktemp("pages")).running() as daemon:
        yield daemon


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Debian's chromium is not installed: make test as root installs it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any, daemon: Daemon) -> Iterator[Browse]:
    contexts: list[Any] = []
    trouble: list[str] = []

    def browse(
        person: Person, path: str = "/", *, phone: bool = False, dark: bool = False,
        javascript: bool = True, expected: str | None = "", certificates: Any = None,
    ) -> Any:  # fmt: skip
        """Open a window.

        :param expected: what expected complaints of the browser have in them; ``None``: any may
            come.
        """
        if certificates is None and person.credential is not None:
            shown = {"cert": person.credential.pem(), "key": person.credential.key_pem()}
            certificates = [{"origin": person.daemon.url, **shown}]
        context = chromium.new_context(
            viewport=PHONE if phone else WIDE, color_scheme="dark" if dark else "light",
            has_touch=phone, is_mobile=phone, java_script_enabled=javascript,
            ignore_https_errors=True, base_url=person.daemon.url,
            client_certificates=certificates or [],
        )  # fmt: skip
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()

        def complain(text: str) -> None:
            if expected is not None and not (expected and expected in text):
                trouble.append(text)

        page.on("pageerror", lambda error: complain(str(error)))

        def hear(message: Any) -> None:
            # That the page itself is a refusal is no trouble.
            if message.type == "error" and message.location["url"] != page.url:
                complain(f"{message.text} {message.location['url']}")

        page.on("console", hear)
        page.goto(path)
        return page

    yield browse
    for context in contexts:
        context.close()
    assert trouble == []
