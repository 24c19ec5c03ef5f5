"""A real Ceph with its S3 gateway for tests: one monitor, one manager, one disk in memory.

The fixture ``ceph`` (session scope) starts it, which takes about ten seconds; without Ceph's
programs (``TOOLS`` in the Makefile names the packages) the tests that need it are skipped.  Each
test takes a bucket of its own::

    def test_something(ceph):
        with Daemon(tmp_path, storage=ceph.storage(ceph.bucket())).running() as daemon: ...
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.server import free_ports

PROGRAMS = ("ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
ACCESS, SECRET = "REPOMANKEY", "REPOMANSECRET"  # of a store that only a test can reach
START_SECONDS = 60

SETTINGS = """
[global]
fsid = {cluster}
mon host = {monitor}
mon initial members = a
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
# Where nobody proves who they are, only this mode is offered; the gateway would wait for another.
ms mon client mode = crc
ms client mode = crc
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
osd objectstore = memstore
# A killed gateway is waited for no longer than this.
osd client watch timeout = 3
memstore device bytes = {size}
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail warn = 1
mon data avail crit = 0
run dir = {place}
admin socket = {place}/$name.asok
log file = {place}/$name.log
mon data = {place}/mon
mgr data = {place}/mgr
osd data = {place}/osd
[client.rgw.a]
rgw frontends = beast endpoint={address}:{port}
rgw data = {place}/rgw
"""


class Ceph:
    """One cluster.

    :param address: of its gateway.
    :param enter: what begins the command of a program that shall run on another host.
    :ivar endpoint: where its gateway speaks S3.
    """

    def __init__(self, place: Path, address: str = "127.0.0.1", enter: Sequence[str] = ()) -> None:
        self.place = place
        self._address = address
        self._enter = enter
        self.port, monitor, old_monitor = free_ports(3)
        self.endpoint = f"http://{address}:{self.port}"
        self.credentials = place / "credentials"
        self._settings = place / "ceph.conf"
        self._monitor = f"[v2:127.0.0.1:{monitor},v1:127.0.0.1:{old_monitor}]"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._buckets = itertools.count(1)

    def start(self) -> None:
        """Make the cluster and run it."""
        cluster = str(uuid.uuid4())
        for part in ("mon", "mgr", "osd", "rgw"):
            (self.place / part).mkdir()
        self._settings.write_text(
            SETTINGS.format(
                cluster=cluster, monitor=self._monitor, place=self.place, port=self.port,
                address=self._address,
                size=8 << 30,
            )
        )  # fmt: skip
        self.credentials.write_text(
            f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n"
        )
        self.credentials.chmod(0o600)
        map_file = self.place / "monmap"
        self._do(
            "monmaptool", "--create", "--fsid", cluster, "--addv", "a", self._monitor, map_file
        )
        self._do("ceph-mon", "--mkfs", "-i", "a", "--monmap", map_file)
        self._run("mon", "ceph-mon", "-i", "a")
        self._run("mgr", "ceph-mgr", "-i", "x")
        disk = str(uuid.uuid4())
        self._do("ceph", "osd", "new", disk)
        self._do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._run("osd", "ceph-osd", "-i", "0")
        self.start_gateway()
        self._do(
            "radosgw-admin", "user", "create", "--uid=repoman", "--display-name=repoman",
            f"--access-key={ACCESS}", f"--secret-key={SECRET}",
        )  # fmt: skip

    def stop(self) -> None:
        """End all of it."""
        for process in reversed(self._running.values()):
            process.kill()  # nothing of it is kept
            process.wait()

    # -- the gateway, and what may happen to it --

    def start_gateway(self) -> None:
        """Run the gateway, and wait until it answers."""
        self._run("rgw", "radosgw", "-n", "client.rgw.a")
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with socket.socket() as one:
                if one.connect_ex((self._address, self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("Ceph's gateway did not start: see " + str(self.place))

    def stop_gateway(self, number: int = signal.SIGTERM) -> None:
        """End the gateway."""
        process = self._running.pop("rgw")
        process.send_signal(number)
        process.wait(30)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A gateway that accepts connections and says nothing."""
        process = self._running["rgw"]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    # -- buckets --

    def bucket(self) -> str:
        """Make a bucket."""
        name = f"bucket{next(self._buckets)}"
        self.s3cmd("mb", f"s3://{name}")
        return name

    def storage(self, bucket: str, **more: Any) -> dict[str, Any]:
        """The section ``[storage]`` of a daemon that keeps its bytes in a bucket."""
        return {
            "backend": "s3", "endpoint": self.endpoint, "bucket": bucket,
            "credentials": self.credentials, **more,
        }  # fmt: skip

    def s3cmd(self, *arguments: str) -> str:
        """Ask the store with Debian's s3cmd."""
        host = f"{self._address}:{self.port}"
        command = ["s3cmd", "--no-ssl", f"--host={host}", f"--host-bucket={host}"]
        command += [f"--access_key={ACCESS}", f"--secret_key={SECRET}", "--config=/dev/null"]
        return self._do(*command, *arguments)

    def _do(self, *command: Any) -> str:
        done = subprocess.run(
            [*self._enter, *map(str, command)], env=self._environment, cwd=self.place,
            timeout=START_SECONDS, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def _run(self, name: str, *command: str) -> None:
        with (self.place / f"{name}.out").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*self._enter, *command, "-f"], env=self._environment, cwd=self.place,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self._settings)}


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A cluster for all tests that need one."""
    missing = [program for program in (*PROGRAMS, "s3cmd") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs {', '.join(missing) or 'root'}, for a Ceph of its own")
    made = Ceph(tmp_path_factory.mktemp("ceph"))
    try:
        made.start()
        yield made
    finally:
        made.stop()
