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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

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


@contextmanager
def nginx(place: Path, daemon: Daemon) -> Iterator[tuple[str, int]]:
    """An nginx with the host certificate of ``daemon``; yields its URL and pid."""
    if shutil.which("nginx") is None:
        sys.exit("nginx is not installed: apt install nginx-light")
    (place / "root" / "up").mkdir(parents=True)
    for name in ("hostcert.pem", "hostkey.pem"):
        shutil.copy(daemon.directory / name, place)
    (place / "ca.pem").write_bytes(next(daemon.ca_directory.glob("*.0")).read_bytes())
    [port] = free_ports(1)
    user = "root" if os.geteuid() == 0 else "nobody"
    config = place / "nginx.conf"
    config.write_text(NGINX.format(place=place, port=port, user=user))
    process = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield f"https://localhost:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


def curl(daemon: Daemon, certificate: Path, key: Path, *arguments: object) -> None:
    """One transfer; fails loudly."""
    subprocess.run(
        ["curl", "-sS", "--fail", "--tls13-ciphers", "TLS_AES_256_GCM_SHA384",
         "--capath", daemon.ca_directory, "--cert", certificate, "--key", key,
         "-o", "/dev/null", *map(str, arguments)],
        check=True,
    )  # fmt: skip
