"""A second gateway of a test's Ceph, with TLS, for what must not cross a network in the clear.

with Daemon(...) as made, tls_gateway(ceph, port, made.directory / "hostcert.pem", ...):
"""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path

from tests.ceph import Ceph

START_SECONDS = 60


@contextmanager
def tls_gateway(ceph: Ceph, port: int, certificate: Path, key: Path) -> Iterator[str]:
    """Let it run; answer the endpoint: its host is ``localhost``."""
    tls = f"ssl_endpoint=127.0.0.1:{port} ssl_certificate={certificate} ssl_private_key={key}"
    with (ceph.place / "tls.out").open("ab") as log:
        process = subprocess.Popen(
            ["radosgw", "-f", "-n", "client.rgw.a", f"--rgw-frontends=beast {tls}",
             f"--admin-socket={ceph.place}/tls.asok", f"--log-file={ceph.place}/tls.log"],
            env={**os.environ, "CEPH_CONF": str(ceph.place / "ceph.conf")}, cwd=ceph.place,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(port)
        yield f"https://localhost:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    unverified = ssl._create_unverified_context()
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        connection = HTTPSConnection("127.0.0.1", port, context=unverified, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise AssertionError("Ceph's gateway did not start")
