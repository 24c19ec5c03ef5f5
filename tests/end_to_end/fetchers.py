"""The programs with which people fetch and store images, each called as its users call it."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from attrs import frozen

SECONDS = 60
"""The longest that one program may take, on a machine that is busy with others."""


@frozen
class Who:
    """Somebody with a proxy, or nobody in particular.

    :ivar proxy: certificate, key and chain in one file; ``None`` without a certificate.
    :ivar ca: whom to trust, in one file.
    :ivar place: a directory for what a program wants to have lying about.
    """

    proxy: Path | None
    ca: Path
    place: Path

    def shown(self, certificate: str, key: str, form: str = "{0} {1}") -> list[str]:
        """The options that name a program its certificate and its key."""
        if self.proxy is None:
            return []
        pairs = [form.format(option, self.proxy) for option in (certificate, key) if option]
        return [word for pair in pairs for word in pair.split(" ")]

    @property
    def tls(self) -> ssl.SSLContext:
        """The same for Python."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.proxy is not None:
            context.load_cert_chain(self.proxy)
        return context


@frozen
class Said:
    """What a program said: whether it was content, and all its words."""

    well: bool
    text: str


Fetch = Callable[[Who, str, Path], Said]
Store = Callable[[Who, str, Path], Said]


def run(*command: str | Path, **environment: str | Path) -> Said:
    """Run a program; skip the test where it is not installed."""
    program = shutil.which(command[0]) or shutil.which(Path(sys.executable).with_name(command[0]))
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
    )  # fmt: skip
    text = (done.stdout + done.stderr).decode(errors="replace")
    return Said(done.returncode == 0, text)


def told(status: int, out: Path, body: bytes) -> Said:
    """What a library told: a success goes into the file, a refusal is to be read."""
    if status != 200:
        return Said(False, f"{status} {body.decode()}")
    out.write_bytes(body)
    return Said(True, "")


# -- programs --


def curl(who: Who, url: str, out: Path, *more: str) -> Said:
    common = ["-sS", "--fail-with-body", "--cacert", who.ca, *who.shown("--cert", "--key")]
    said = run("curl", *common, "-w", "%{http_code}\n", *more, "-o", out, url)
    return Said(said.well, said.text + ("" if said.well else out.read_text()))


def wget(who: Who, url: str, out: Path, *more: str) -> Said:
    common = ["-nv", "--tries=2", "--content-on-error", f"--ca-certificate={who.ca}"]
    shown = who.shown("--certificate", "--private-key", "{0}={1}")
    said = run("wget", *common, *shown, *more, "-O", out, url)
    return Said(said.well, said.text + ("" if said.well else out.read_text()))


def aria2(who: Who, url: str, out: Path, *more: str) -> Said:
    common = ["--summary-interval=0", "--console-log-level=notice", "-x4", "-s4", "-k1M"]
    shown = who.shown("--certificate", "--private-key", "{0}={1}")
    place = ["-d", out.parent, "-o", out.name]
    return run("aria2c", *common, f"--ca-certificate={who.ca}", *shown, *more, *place, url)


def rclone(who: Who, url: str, out: Path) -> Said:
    shown = who.shown("--client-cert", "--client-key")
    once = ["--config", "/dev/null", "--low-level-retries", "1", "--retries", "1"]
    return run("rclone", "copyurl", *once, "--ca-cert", who.ca, *shown, url, out)


def axel(who: Who, url: str, out: Path) -> Said:
    # It takes no name of one label for right.
    return run("axel", "-q", "-k", "-n", "4", "-o", out, url)


def lynx(who: Who, url: str, out: Path) -> Said:
    (settings := who.place / "lynx.cfg").write_text("FORCE_SSL_PROMPT:YES\n")
    program = shutil.which("lynx") or "lynx"
    script = 'exec "$0" -cfg="$1" -source "$2" > "$3"'
    said = run(program, "-version")
    return run("sh", "-c", script, program, settings, url, out) if said.well else said


def httpie(who: Who, url: str, out: Path, *more: str) -> Said:
    common = ["--ignore-stdin", "--check-status", "--verify", who.ca]
    shown = who.shown("--cert", "--cert-key")
    return run("http", *common, *shown, "--download", *more, "-o", out, "GET", url)


def qemu_img(who: Who, url: str, out: Path) -> Said:
    scheme = urlsplit(url).scheme
    verify = ',"sslverify":"off"' if scheme == "https" else ""
    source = f'json:{{"driver":"raw","file":{{"driver":"{scheme}","url":"{url}"{verify}}}}}'
    said = run("qemu-img", "convert", "-m", "1", "-f", "raw", "-O", "raw", source, out)
    if "Unknown protocol" in said.text or "Unknown driver" in said.text:
        pytest.skip("qemu's curl driver (qemu-block-extra) is not installed")
    return said


def nbdkit(who: Who, url: str, out: Path) -> Said:
    copy = f'qemu-img convert -m 1 -f raw -O raw "$uri" {out}'
    return run("nbdkit", "-U", "-", "curl", url, f"cainfo={who.ca}", "--run", copy)


def davix(who: Who, url: str, out: Path) -> Said:
    place = who.place / "certificates"
    place.mkdir(exist_ok=True)
    shutil.copy(who.ca, place)
    run("openssl", "rehash", place)
    return run("davix-get", *who.shown("-E", ""), "--capath", place, "--retry", "0", url, out)


def ansible(who: Who, url: str, out: Path) -> Said:
    shown = f"client_cert={who.proxy} client_key={who.proxy}" if who.proxy else ""
    words = f"url={url} dest={out} {shown}"
    return run(
        "ansible", "localhost", "-m", "ansible.builtin.get_url", "-a", words,
        "-e", f"ansible_python_interpreter={sys.executable}",
        ANSIBLE_HOME=who.place, ANSIBLE_LOCALHOST_WARNING="False", LC_ALL="C.UTF-8",
        SSL_CERT_FILE=who.ca,
    )  # fmt: skip


NODE = """
const [method, url, ca, proxy, file] = process.argv.slice(2), fs = require("fs");
const pem = proxy ? fs.readFileSync(proxy) : undefined;
const body = method == "PUT" ? fs.readFileSync(file) : "";
const options = {method, ca: fs.readFileSync(ca), cert: pem, key: pem};
if (body) options.headers = {"Content-Length": body.length};
const ask = require(url.startsWith("https") ? "https" : "http").request(url, options, answer => {
  const pieces = [];
  answer.on("data", piece => pieces.push(piece));
  answer.on("end", () => {
    const whole = Buffer.concat(pieces);
    if (answer.statusCode != 200) {
      console.error(answer.statusCode, whole.toString());
      process.exit(1);
    }
    if (!body) fs.writeFileSync(file, whole);
  });
});
ask.on("error", error => { console.error(error.message); process.exit(2); });
ask.end(body);
"""


def node(who: Who, url: str, out: Path, method: str = "GET") -> Said:
    (script := who.place / "fetch.js").write_text(NODE)
    return run("node", script, method, url, who.ca, str(who.proxy or ""), out)


JAVA = """
import java.io.*; import java.net.URI; import java.net.http.*; import java.nio.file.*;
import java.security.KeyStore; import java.security.cert.*; import javax.net.ssl.*;

public class Fetch {
  public static void main(String[] args) throws Exception {
    KeyStore trust = KeyStore.getInstance("PKCS12"); trust.load(null, null);
    var ca = CertificateFactory.getInstance("X.509");
    try (var in = new FileInputStream(args[2])) {
      int number = 0;
      for (var one : ca.generateCertificates(in)) trust.setCertificateEntry("ca" + number++, one);
    }
    var trusted = TrustManagerFactory.getInstance("PKIX"); trusted.init(trust);
    KeyManager[] keys = null;
    if (!args[3].isEmpty()) {
      KeyStore own = KeyStore.getInstance("PKCS12");
      own.load(new FileInputStream(args[3]), "secret".toCharArray());
      var factory = KeyManagerFactory.getInstance("PKIX");
      factory.init(own, "secret".toCharArray());
      keys = factory.getKeyManagers();
    }
    var tls = SSLContext.getInstance("TLS"); tls.init(keys, trusted.getTrustManagers(), null);
    var client = HttpClient.newBuilder().sslContext(tls).build();
    var ask = HttpRequest.newBuilder(URI.create(args[1]));
    if (args[0].equals("PUT")) ask.PUT(HttpRequest.BodyPublishers.ofFile(Path.of(args[4])));
    var answer = client.send(ask.build(), HttpResponse.BodyHandlers.ofByteArray());
    if (answer.statusCode() != 200) {
      System.err.println(answer.statusCode() + " " + new String(answer.body()));
      System.exit(1);
    }
    if (args[0].equals("GET")) Files.write(Path.of(args[4]), answer.body());
  }
}
"""


def java(who: Who, url: str, out: Path, method: str = "GET") -> Said:
    if not (who.place / "Fetch.class").exists():
        (source := who.place / "Fetch.java").write_text(JAVA)
        run("javac", "-d", who.place, source)
    store = ""
    if who.proxy is not None:
        store = str(who.place / "proxy.p12")
        export = ["-export", "-in", who.proxy, "-out", store, "-passout", "pass:secret"]
        run("openssl", "pkcs12", *export)
    return run(
        "java",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        who.place,
        "Fetch",
        method,
        url,
        who.ca,
        store,
        out,
    )


# -- Python's libraries --


def standard(who: Who, url: str, out: Path) -> Said:
    try:
        with urllib.request.urlopen(url, context=who.tls, timeout=SECONDS) as answer:
            return told(answer.status, out, answer.read())
    except urllib.error.HTTPError as error:
        return told(error.code, out, error.read())


@contextmanager
def connected(who: Who, url: str) -> Iterator[tuple[http.client.HTTPConnection, str]]:
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, context=who.tls, timeout=SECONDS)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=SECONDS)
    yield connection, parts.path
    connection.close()


def http_client(who: Who, url: str, out: Path) -> Said:
    with connected(who, url) as (connection, path):
        connection.request("GET", path)
        answer = connection.getresponse()
        return told(answer.status, out, answer.read())


def requests(who: Who, url: str, out: Path) -> Said:
    requests = pytest.importorskip("requests")
    shown = who.proxy and str(who.proxy)
    answer = requests.get(url, cert=shown, verify=str(who.ca), timeout=SECONDS)
    return told(answer.status_code, out, answer.content)


def urllib3(who: Who, url: str, out: Path) -> Said:
    urllib3 = pytest.importorskip("urllib3")
    answer = urllib3.PoolManager(ssl_context=who.tls).request("GET", url, retries=False)
    return told(answer.status, out, answer.data)


def httpx(who: Who, url: str, out: Path) -> Said:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(verify=who.tls, timeout=SECONDS) as client:
        answer = client.get(url)
    return told(answer.status_code, out, answer.content)


def aiohttp(who: Who, url: str, out: Path) -> Said:
    aiohttp = pytest.importorskip("aiohttp")

    async def fetch() -> Said:
        async with aiohttp.ClientSession() as session, session.get(url, ssl=who.tls) as answer:
            return told(answer.status, out, await answer.read())

    return asyncio.run(fetch())


FETCHERS: dict[str, Fetch] = {
    "curl": curl, "wget": wget, "aria2": aria2, "rclone": rclone, "axel": axel, "lynx": lynx,
    "httpie": httpie, "qemu-img": qemu_img, "nbdkit": nbdkit, "davix": davix, "ansible": ansible,
    "node": node, "java": java, "urllib": standard, "http.client": http_client,
    "requests": requests, "urllib3": urllib3, "httpx": httpx, "aiohttp": aiohttp,
}  # fmt: skip

WITHOUT_CERTIFICATES = {"axel", "lynx", "qemu-img", "nbdkit"}
"""These have no way to show a client's certificate: public images only."""

SAY_NO_WORDS = {
    "aria2", "rclone", "axel", "lynx", "qemu-img", "nbdkit", "ansible", "httpie", "davix",
}  # fmt: skip
"""These tell their users at most the status of a refusal, whatever a server says."""


# -- uploads --


def curl_put(who: Who, url: str, source: Path) -> Said:
    common = ["-sS", "--fail-with-body", "--cacert", who.ca, *who.shown("--cert", "--key")]
    return run("curl", *common, "-T", source, url)


def wget_put(who: Who, url: str, source: Path) -> Said:
    shown = who.shown("--certificate", "--private-key", "{0}={1}")
    common = ["-nv", "--tries=2", "--content-on-error", f"--ca-certificate={who.ca}", *shown]
    return run("wget", *common, "-O", "-", "--method=PUT", f"--body-file={source}", url)


def httpie_put(who: Who, url: str, source: Path) -> Said:
    common = ["--ignore-stdin", "--check-status", "--verify", who.ca]
    return run("http", *common, *who.shown("--cert", "--cert-key"), "PUT", url, f"@{source}")


def node_put(who: Who, url: str, source: Path) -> Said:
    return node(who, url, source, "PUT")


def java_put(who: Who, url: str, source: Path) -> Said:
    return java(who, url, source, "PUT")


def http_client_put(who: Who, url: str, source: Path) -> Said:
    with connected(who, url) as (connection, path), source.open("rb") as file:
        connection.request("PUT", path, file, {"Content-Length": str(source.stat().st_size)})
        answer = connection.getresponse()
        return Said(answer.status == 200, f"{answer.status} {answer.read().decode()}")


def requests_put(who: Who, url: str, source: Path) -> Said:
    requests = pytest.importorskip("requests")
    shown = who.proxy and str(who.proxy)
    with source.open("rb") as file:
        answer = requests.put(url, data=file, cert=shown, verify=str(who.ca), timeout=SECONDS)
    return Said(answer.status_code == 200, f"{answer.status_code} {answer.text}")


def urllib3_put(who: Who, url: str, source: Path) -> Said:
    urllib3 = pytest.importorskip("urllib3")
    pool = urllib3.PoolManager(ssl_context=who.tls)
    answer = pool.request("PUT", url, body=source.read_bytes(), retries=False)
    return Said(answer.status == 200, f"{answer.status} {answer.data.decode()}")


def httpx_put(who: Who, url: str, source: Path) -> Said:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(verify=who.tls, timeout=SECONDS) as client, source.open("rb") as file:
        answer = client.put(url, content=file)
    return Said(answer.status_code == 200, f"{answer.status_code} {answer.text}")


def aiohttp_put(who: Who, url: str, source: Path) -> Said:
    aiohttp = pytest.importorskip("aiohttp")

    async def store() -> Said:
        async with aiohttp.ClientSession() as session:
            with source.open("rb") as file:
                async with session.put(url, data=file, ssl=who.tls) as answer:
                    return Said(answer.status == 200, f"{answer.status} {await answer.text()}")

    return asyncio.run(store())


UPLOADERS: dict[str, Store] = {
    "curl": curl_put, "wget": wget_put, "httpie": httpie_put, "node": node_put, "java": java_put,
    "http.client": http_client_put, "requests": requests_put, "urllib3": urllib3_put,
    "httpx": httpx_put, "aiohttp": aiohttp_put,
}  # fmt: skip
