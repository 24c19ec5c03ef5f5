"""What a killed worker had, is free as soon as the next one begins."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.end_to_end.test_resumable_uploads import CONTENT, begin, begin_part, send
from tests.end_to_end.test_two_daemons import eventually
from tests.postgres import on_server
from tests.server import Daemon

STARTS = 10.0
"""Seconds in which a worker begins; much less than its claims would last."""


def workers_of(daemon: Daemon) -> list[int]:
    """The process ids of its workers."""
    assert daemon.process is not None
    foreman = daemon.process.pid
    children = Path(f"/proc/{foreman}/task/{foreman}/children").read_text().split()
    return [
        int(child) for child in children
        if b"REPOMAN_ORDERS=" in Path(f"/proc/{child}/environ").read_bytes()
    ]  # fmt: skip


def test_uploads_of_killed_workers_go_on_and_their_room_is_free(tmp_path: Path) -> None:
    with Daemon(tmp_path, server={"workers": 2}).running() as daemon:
        alice, size = daemon.newcomer(), len(CONTENT)
        alice.ask("POST", "/api/images", form={"name": "whole"})
        upload = begin(alice, "parts")
        part = begin_part(alice, upload, 0, size)
        whole = alice.connection()
        whole.putrequest("PUT", "/api/images/raw/whole")
        whole.putheader("Content-Length", str(size))
        whole.endheaders()
        for connection in (part, whole):
            connection.send(CONTENT[: size // 2])
        time.sleep(1.5)
        account = f"SELECT used, reserved FROM account WHERE user_name = '{alice.name}'"
        assert on_server(daemon.dsn, account) == [(0, 2 * size)]
        begun = time.monotonic()
        for pid in workers_of(daemon):
            os.kill(pid, signal.SIGKILL)
        alice.hang_up()
        answer = eventually(lambda: alice.ask("HEAD", upload))
        assert time.monotonic() - begun < STARTS
        offset = int(answer.headers["Upload-Offset"])
        assert send(alice, upload, offset, CONTENT[offset:], last=True).status == 200
        assert alice.ask("GET", "/api/images/raw/parts").body == CONTENT
        assert on_server(daemon.dsn, account) == [(size, 0)]
