"""What ``test_lowest_versions.py`` runs with the lowest versions, besides tests of others."""

from __future__ import annotations

from tests.server import Daemon, ask_plain


def test_an_image_from_end_to_end(daemon: Daemon) -> None:
    user, content = daemon.newcomer("lowly"), b"bytes of an image" * 10_000
    made = user.ask("POST", "/api/images", json={"name": "low", "unauthenticated_access": True})
    assert made.status == 201
    assert user.ask("PUT", "/api/images/raw/low", body=content).status == 200
    assert user.ask("GET", "/api/images/raw/low").body == content
    assert ask_plain(made.json["http_file_url"]).body == content
    (image,) = user.ask("GET", "/api/images?view=full").json
    assert image["size"] == len(content)
    page = user.ask("GET", "/", headers={"Accept": "text/html"})
    assert page.status == 200
    assert "low" in page.text
    nobody = daemon.stranger().ask("GET", "/api/whoami", headers={"Accept": "application/json"})
    assert nobody.json["status"] == 403
