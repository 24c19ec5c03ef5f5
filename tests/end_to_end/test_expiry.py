"""Expired images: their bytes are refused at once, and go after the configured time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.server import Daemon


@pytest.mark.directory_store
def test_an_expired_image_is_410_and_its_bytes_go_later(tmp_path: Path) -> None:
    with Daemon(tmp_path, limits={"expired_kept": "3s"}).running() as daemon:
        admin = daemon.admin
        admin.ask("POST", "/api/images", form={"name": "old"})
        admin.ask("PUT", "/api/images/raw/old", body=b"bytes")
        assert admin.ask("POST", "/api/images/old", form={"expires": "2020-01-01"}).status == 200
        assert admin.ask("GET", "/api/images/raw/old").status == 410
        blobs = daemon.directory / "state" / "blobs" / "data"
        end = time.monotonic() + 90
        while any(path.is_file() for path in blobs.rglob("*")):
            assert time.monotonic() < end
            # Another upload wakes the sweeper, which else looks once a minute.
            admin.ask("POST", "/api/images", form={"name": "other"})
            admin.ask("PUT", "/api/images/raw/other", body=b"x")
            admin.ask("DELETE", "/api/images/other")
            time.sleep(1)
        described = admin.ask("GET", "/api/images/old").json
        assert described["raw_file_uploaded"] is False
        assert described["expires"] == "Wed Jan  1 00:00:00 2020"
