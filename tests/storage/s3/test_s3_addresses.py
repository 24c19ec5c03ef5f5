"""What the name service says, whatever becomes of it."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

import pytest
import pytest_twisted
from directory_store import until
from twisted.internet.defer import CancelledError, Deferred

from repoman.storage.s3 import addresses
from repoman.storage.s3.addresses import Addresses
from tests.s3 import reactor


@pytest.fixture
def getent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A name service that is asked in this file, a shell script."""
    program = tmp_path / "getent"
    program.touch(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    monkeypatch.setattr(os, "defpath", path)
    monkeypatch.setenv("PATH", path)
    return program


def answering(getent: Path, line: str) -> Path:
    """Let it do so; answer where it notes that it was asked, and as which process."""
    asked = getent.with_name("asked")
    getent.write_text(f"#!/bin/sh\necho $$ >> {asked}\n{line}\n")
    return asked


@pytest_twisted.ensureDeferred
async def test_many_who_connect_at_once_ask_the_name_service_once(getent: Path) -> None:
    asked = answering(getent, "sleep 0.3; echo 192.0.2.7 STREAM; echo 192.0.2.7 DGRAM")
    known = Addresses(reactor, "store.example")
    one, *others = [Deferred.fromCoroutine(known.get()) for _ in range(20)]
    one.cancel()
    with pytest.raises(CancelledError):
        await one
    for other in others:
        assert await other == ["192.0.2.7"]
    assert len(asked.read_text().splitlines()) == 1


@pytest_twisted.ensureDeferred
async def test_while_the_name_service_fails_its_last_answer_holds(
    getent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "KNOWN_SECONDS", 0.0)
    answering(getent, "echo 192.0.2.7 STREAM")
    known = Addresses(reactor, "store.example")
    assert await known.get() == ["192.0.2.7"]
    asked = answering(getent, "exit 2")
    assert await known.get() == ["192.0.2.7"]
    assert len(asked.read_text().splitlines()) == 2


@pytest_twisted.ensureDeferred
async def test_a_name_service_that_is_silent_is_given_up(
    getent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "LOOKUP_SECONDS", 0.5)
    asked = answering(getent, "exec sleep 60")
    began = monotonic()
    assert await Addresses(reactor, "store.example").get() == []
    assert monotonic() - began < 5
    await until(lambda: not Path(f"/proc/{asked.read_text().strip()}").exists())
