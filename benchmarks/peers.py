"""The peers that benchmarks compare with, and how CPU is counted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.ceph import Ceph
from tests.server import Daemon, free_ports

GIB = 1 << 30
TICKS = os.sysconf("SC_CLK_TCK")

NGINX = """
daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log; user {user};
events {{}}
http {{
    access_log off; sendfile on; client_max_body_size 0;
    client_body_temp_path {place}/body; proxy_temp_path {place}/t; fastcgi_temp_path {place}/t;
    uwsgi_temp_path {place}/t; scgi_temp_path {place}/t;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {place}/hostcert.pem; ssl_certificate_key {place}/hostkey.pem;
        ssl_protocols TLSv1.3; ssl_client_certificate {place}/ca.pem;
        ssl_verify_client optional; ssl_verify_depth 5;
        root {place}/root;
        location /up {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""

APACHE = """
ServerRoot {place}
PidFile {place}/pid
ErrorLog {place}/error.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
LoadModule dav_module /usr/lib/apache2/modules/mod_dav.so
LoadModule dav_fs_module /usr/lib/apache2/modules/mod_dav_fs.so
ServerName localhost
StartServers 1
ServerLimit 1
Listen 127.0.0.1:{port}
DavLockDB {place}/lock
DocumentRoot {place}/root
SSLEngine on
SSLCertificateFile {place}/hostcert.pem
SSLCertificateKeyFile {place}/hostkey.pem
SSLCACertificateFile {place}/ca.pem
SSLProtocol TLSv1.3
SSLVerifyClient optional
<Directory {place}/root>
    Require all granted
    Dav on
</Directory>
"""


def peak_memory(pid: int) -> int:
    """The most memory that a process has held since :func:`forget_peak`, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


def forget_peak(pid: int) -> None:
    """Let :func:`peak_memory` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_until_idle(pid: int) -> None:
    """Until a server does nothing by itself any more: digests, flushes, write-back."""
    quiet = 0
    while quiet < 4:
        before = cpu(pid)
        time.sleep(0.25)
        quiet = quiet + 1 if cpu(pid) - before < 0.02 else 0


def cpu(pid: int) -> float:
    """CPU-seconds of a process and of all its descendants so far."""
    total = 0.0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except FileNotFoundError:
            continue
        total += sum(map(int, fields[11:15])) / TICKS
        waiting += map(int, children)
    return total


@frozen
class Peer:
    """A server to compare with.

    :ivar file: the URL of a file to fetch: ``image`` in ``root``.
    :ivar upload: the URL to put a file to; empty if it takes none.
    :ivar root: the directory that it serves.
    :ivar pid: of the process whose CPU counts, with its descendants.
    :ivar is_ours: it is a Repoman, too.
    """

    name: str
    file: str
    upload: str
    root: Path
    pid: int
    is_ours: bool = False


@contextmanager
def nginx(place: Path, daemon: Daemon) -> Iterator[Peer]:
    """An nginx with the host certificate of ``daemon``."""
    with _beside(place, daemon, "nginx", NGINX, "nginx", "-c") as peer:
        yield peer


@contextmanager
def apache(place: Path, daemon: Daemon) -> Iterator[Peer]:
    """An Apache with the host certificate of ``daemon``."""
    with _beside(place, daemon, "apache", APACHE, "apache2", "-D", "FOREGROUND", "-f") as peer:
        yield peer


@contextmanager
def _beside(
    place: Path, daemon: Daemon, name: str, text: str, program: str, *options: str
) -> Iterator[Peer]:
    if shutil.which(program) is None:
        sys.exit(f"{program} is not installed: apt install nginx-light apache2")
    (place / "root" / "up").mkdir(parents=True)
    for one in ("hostcert.pem", "hostkey.pem"):
        shutil.copy(daemon.directory / one, place)
    (place / "ca.pem").write_bytes(next(daemon.ca_directory.glob("*.0")).read_bytes())
    [port] = free_ports(1)
    user = "root" if os.geteuid() == 0 else "nobody"
    config = place / "server.conf"
    config.write_text(text.format(place=place, port=port, user=user))
    process = subprocess.Popen([program, *options, str(config)], stderr=subprocess.DEVNULL)
    url = f"https://localhost:{port}"
    try:
        time.sleep(1)
        yield Peer(name, f"{url}/image", f"{url}/up/image", place / "root", process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def stock(place: Path, daemon: Daemon) -> Iterator[Peer]:
    """A second daemon of ours, that finds Twisted's and pyOpenSSL's ways only."""
    other = Daemon(place)
    other.twistd = [sys.executable, Path(__file__).with_name("stock_twistd.py")]
    with _ours("stock", place, other) as peer:
        yield peer


@contextmanager
def _ours(name: str, place: Path, other: Daemon) -> Iterator[Peer]:
    with other.running():
        assert other.process is not None
        other.admin.ask("POST", "/api/images", form={"name": "image"})
        (place / "root").mkdir()
        url = f"{other.url}/api/images/raw/{other.admin.name}/image"
        yield Peer(name, url, url, place / "root", other.process.pid, is_ours=True)


@contextmanager
def in_ceph(place: Path) -> Iterator[Ceph]:
    """A Ceph in memory, on this machine, too."""
    place.mkdir()
    cluster = Ceph(place)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def ceph(place: Path, daemon: Daemon) -> Iterator[Peer]:
    """A second daemon of ours, whose bytes are in a Ceph; what that costs itself is not counted."""
    with in_ceph(place / "cluster") as cluster:
        (place / "daemon").mkdir()
        other = Daemon(place / "daemon", storage=cluster.storage(cluster.bucket()))
        with _ours("ceph", place, other) as peer:
            yield peer


PEERS = {"nginx": nginx, "apache": apache, "stock": stock, "ceph": ceph}
"""The servers that transfers can be compared with."""


def curl(daemon: Daemon, certificate: Path, key: Path, *arguments: object) -> None:
    """One transfer; fails loudly."""
    subprocess.run(
        ["curl", "-sS", "--fail", "--tls13-ciphers", "TLS_AES_256_GCM_SHA384",
         "--capath", daemon.ca_directory, "--cert", certificate, "--key", key,
         "-o", "/dev/null", *map(str, arguments)],
        check=True,
    )  # fmt: skip
