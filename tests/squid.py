"""A real squid, as sites have one in front of their nodes, with its stock rules of freshness.

with squid(directory) as proxy: proxy.ask("http://...")
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from attrs import frozen

from tests.server import Answer, free_ports

START_SECONDS = 60
STOP_SECONDS = 30

CONFIGURATION = """
http_port 127.0.0.1:{port}
visible_hostname localhost
cache_effective_user nobody
pid_filename {place}/squid.pid
cache_log {place}/cache.log
access_log stdio:{place}/access.log
coredump_dir {place}
cache_dir ufs {place}/cache 500 16 64
cache_mem 32 MB
maximum_object_size 1024 MB
http_access allow localhost
http_access deny all
refresh_pattern . 0 20% 4320
minimum_expiry_time 0
shutdown_lifetime 1 second
pinger_enable off
"""


@frozen
class Squid:
    """A proxy.

    :ivar port: where it listens.
    """

    port: int

    def ask(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Fetch through it.  With ``X-Cache`` it says whether the bytes are its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            host = urlsplit(url).netloc
            connection.request("GET", url, headers={"Host": host, **(headers or {})})
            response = connection.getresponse()
            answered = {k.title(): v for k, v in response.getheaders()}
            return Answer(response.status, response.reason, answered, response.read())
        finally:
            connection.close()


@contextmanager
def squid(place: Path) -> Iterator[Squid]:
    """Let one run in an empty directory that it can reach."""
    if shutil.which("squid") is None:
        pytest.skip("squid is not installed")
    [port] = free_ports(1)
    configuration = place / "squid.conf"
    configuration.write_text(CONFIGURATION.format(port=port, place=place))
    if os.geteuid() == 0:
        shutil.chown(place, "nobody")
    command = ["squid", "-N", "-f", str(configuration), "-n", f"repoman{port}"]
    with (place / "out").open("wb") as out:
        subprocess.run([*command, "-z"], check=True, stdout=out, stderr=out, timeout=START_SECONDS)
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        _wait_for(process, port, place)
        yield Squid(port)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _wait_for(process: subprocess.Popen[bytes], port: int, place: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            Squid(port).ask("http://127.0.0.1:1/")
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"squid did not start:\n{(place / 'cache.log').read_text()[-2000:]}")
