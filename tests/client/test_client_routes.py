"""One method per route: what is asked, what comes back, how refusals and broken lines look."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import BufferingTLSTransport

from repoman import errors, tls_flow
from repoman.client.credentials import CredentialFiles
from repoman.client.records import has_file, stored_sha256
from repoman.client.repository import RepositoryClient
from repoman.model import ImageRef
from tests.client.conftest import make_client
from tests.client.scripted import CLOSE, Asked, ScriptedServer, json_reply, problem, reply
from tests.credentials import Grid, authority, host

TORN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}" + CLOSE
NO_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nab\r\n"
ME = {"user_name": "r"}
MINE, THEIRS = ImageRef(None, "base.img"), ImageRef("roger", "base.img")


@pytest.mark.parametrize(
    ("method", "arguments", "asked"),
    [
        ("whoami", (), "GET /api/whoami"),
        ("users", (), "GET /api/users"),
        ("create_user", ({"user_name": "r"},), "POST /api/users"),
        ("user", ("r",), "GET /api/users/r"),
        ("modify_user", ("r", {"email": "e"}), "POST /api/users/r"),
        ("delete_user", ("r",), "DELETE /api/users/r"),
        ("user_images", ("r",), "GET /api/users/r/images"),
        ("user_groups", ("r",), "GET /api/users/r/groups"),
        ("user_permissions", ("r",), "GET /api/users/r/permissions"),
        ("shared_with_user", ("r",), "GET /api/users/r/shared"),
        ("shared_by_user", ("r",), "GET /api/users/r/sharing"),
        ("groups", (), "GET /api/groups"),
        ("create_group", ({"name": "g"},), "POST /api/groups"),
        ("group", ("g",), "GET /api/groups/g"),
        ("modify_group", ("g", {"name": "h"}), "POST /api/groups/g"),
        ("delete_group", ("g",), "DELETE /api/groups/g"),
        ("shared_with_group", ("g",), "GET /api/groups/g/shared"),
        ("group_users", ("g",), "GET /api/groups/g/users"),
        ("group_permissions", ("g",), "GET /api/groups/g/permissions"),
        ("add_member", ("g", "r"), "POST /api/groups/g/users/r"),
        ("remove_member", ("g", "r"), "DELETE /api/groups/g/users/r"),
        ("add_permission", ("g", "p"), "POST /api/groups/g/permissions/p"),
        ("remove_permission", ("g", "p"), "DELETE /api/groups/g/permissions/p"),
        ("images", (), "GET /api/images"),
        ("create_image", ({"name": "i"},), "POST /api/images"),
        ("image", (MINE,), "GET /api/images/base.img"),
        ("image", (THEIRS,), "GET /api/images/roger/base.img"),
        ("modify_image", (THEIRS, {"name": "i"}), "POST /api/images/roger/base.img"),
        ("delete_image", (MINE,), "DELETE /api/images/base.img"),
        ("share_with_user", (MINE, "r"), "POST /api/images/base.img/share/user/r"),
        ("unshare_with_user", (MINE, "r"), "DELETE /api/images/base.img/share/user/r"),
        ("share_with_group", (THEIRS, "g"), "POST /api/images/roger/base.img/share/group/g"),
        ("unshare_with_group", (MINE, "g"), "DELETE /api/images/base.img/share/group/g"),
        ("make_offer", ({"name": "i", "recipient": "r"},), "POST /api/offers"),
        ("offer", (THEIRS,), "GET /api/offers/roger/base.img"),
        ("accept_offer", (THEIRS, {"name": "i"}), "POST /api/offers/roger/base.img"),
        ("end_offer", (THEIRS,), "DELETE /api/offers/roger/base.img"),
        ("image", (ImageRef("a/b", "c?d"),), "GET /api/images/a%2Fb/c%3Fd"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_each_method_asks_its_route(
    server: ScriptedServer, client: RepositoryClient, method: str, arguments: Any, asked: str
) -> None:
    record = getattr(RepositoryClient, method).__annotations__["return"] == "Record"
    answer: Any = {"name": "said", "user_name": "said"} if record else ["said"]
    server.scripts[asked] = lambda _: json_reply(answer)
    result = await getattr(client, method)(*arguments)
    assert result in (answer, None)
    assert server.paths() == [asked]
    fields = [a for a in arguments if isinstance(a, dict)]
    if fields:
        assert json.loads(server.asked[0].body) == fields[0]


@pytest_twisted.ensureDeferred
async def test_filters_are_the_query(server: ScriptedServer, client: RepositoryClient) -> None:
    server.scripts["GET /api/images"] = lambda _: json_reply([])
    assert await client.images(view="full", owner="a b") == []
    assert server.paths() == ["GET /api/images?view=full&owner=a+b"]


@pytest_twisted.ensureDeferred
async def test_all_pages_of_a_listing_are_read(
    server: ScriptedServer, client: RepositoryClient
) -> None:
    def page(asked: Asked) -> bytes:
        if "after=2" in asked.path:
            return json_reply(["3"])
        link = '<https://elsewhere.example.org/api/images?after=2>; rel="next"'
        return json_reply(["1", "2"], Link=link)

    server.scripts["GET /api/images"] = page
    assert await client.images() == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (problem("NotIdentified", 403, "Unknown DN /CN=x."), errors.NotIdentified, "Unknown DN"),
        (problem("Protected", 403, "It is read-only."), errors.Protected, "read-only"),
        (problem("AlreadyExists", 409, "Taken."), errors.AlreadyExists, "Taken"),
        (problem("Missing", 404, "No such user."), errors.Missing, "No such user"),
        (problem("Nonsense", 418, "Tea."), errors.BadReply, "Tea"),
        (reply(400, b"user_name is missing."), errors.Invalid, "user_name is missing"),
        (reply(302, Location="https://example.org"), errors.BadReply, r"elsewhere.*example\.org"),
        (reply(200, b"<html>"), errors.BadReply, "else than JSON"),
        (reply(500, b"Oops"), errors.RepomanError, "Oops"),
        (problem("Unavailable", 503, "Soon."), errors.Unavailable, "Soon"),
        (TORN, errors.ConnectionProblem, "closed|broke"),
        (CLOSE, errors.ConnectionProblem, "closed|broke"),
        (b"220 ready\r\n" + CLOSE, errors.BadReply, "does not speak HTTP"),
        (reply(200, Content_Length="-5"), errors.BadReply, "does not speak HTTP"),
        (NO_CHUNK, errors.ConnectionProblem, "its answer came broken"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_refusal_is_raised_as_the_servers_class(
    server: ScriptedServer,
    client: RepositoryClient,
    answer: bytes,
    kind: type[Exception],
    words: str,
) -> None:
    server.scripts["GET /api/whoami"] = lambda _: answer
    with pytest.raises(kind, match=words) as raised:
        await client.whoami()
    assert type(raised.value) is kind


@pytest_twisted.ensureDeferred
async def test_questions_are_asked_again_but_orders_are_not(
    server: ScriptedServer, client: RepositoryClient
) -> None:
    down = problem("Unavailable", 503, "Soon.")
    server.scripts["GET /api/whoami"] = [lambda _: down, lambda _: CLOSE, lambda _: json_reply(ME)]
    assert await client.whoami() == ME
    assert len(server.asked) == 3
    server.scripts["POST /api/groups"] = lambda _: down
    with pytest.raises(errors.Unavailable):
        await client.create_group({"name": "g"})
    assert len(server.asked) == 4


DEEP = b"[" * 200_000


@pytest.mark.parametrize(
    "answer",
    [[], 5, None, "x", {}, {"user_name": None}, {"user_name": "r", "images": None},
     {"user_name": "r", "images": [1]}, {"user_name": "r", "credential": []}],
    ids=repr,
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_no_record_is_the_servers_fault(
    server: ScriptedServer, client: RepositoryClient, answer: Any
) -> None:
    server.scripts["GET /api/whoami"] = lambda _: json_reply(answer)
    with pytest.raises(errors.BadReply, match="The server's answer"):
        await client.whoami()


@pytest.mark.parametrize("answer", [{}, 5, None, "x", [1], [None], [["a"]]], ids=repr)
@pytest.mark.parametrize("filters", [{}, {"view": "full"}])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_no_listing_is_the_servers_fault(
    server: ScriptedServer, client: RepositoryClient, answer: Any, filters: dict[str, str]
) -> None:
    server.scripts["GET /api/images"] = lambda _: json_reply(answer)
    with pytest.raises(errors.BadReply, match="no listing"):
        await client.images(**filters)


@pytest_twisted.ensureDeferred
async def test_what_a_record_lacks_is_the_servers_fault(
    server: ScriptedServer, client: RepositoryClient
) -> None:
    server.scripts["GET /api/images/vm"] = lambda _: json_reply({"name": "vm", "checksum": {}})
    image = await client.image(ImageRef(None, "vm"))
    with pytest.raises(errors.BadReply, match="has no 'value'"):
        stored_sha256(image)
    with pytest.raises(errors.BadReply, match="has no 'files'"):
        has_file(image, "kvm")


@pytest_twisted.ensureDeferred
async def test_json_without_a_bottom_is_refused(
    server: ScriptedServer, client: RepositoryClient
) -> None:
    server.scripts["GET /api/whoami"] = lambda _: reply(200, DEEP)
    with pytest.raises(errors.BadReply, match="else than JSON"):
        await client.whoami()


@pytest_twisted.ensureDeferred
async def test_a_problem_without_a_bottom_is_refused(
    server: ScriptedServer, client: RepositoryClient
) -> None:
    bottomless = reply(403, b"[" * 100_000, Content_Type="application/problem+json")
    server.scripts["GET /api/whoami"] = lambda _: bottomless
    with pytest.raises(errors.BadReply, match="broken problem report"):
        await client.whoami()


@pytest_twisted.ensureDeferred
async def test_an_answer_that_never_begins_is_left(
    server: ScriptedServer, client: RepositoryClient
) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"X-More: of the same\r\n" * 100_000
    server.scripts["GET /api/whoami"] = lambda _: head
    with pytest.raises(errors.BadReply, match="does not come to its point"):
        await client.whoami()
    assert len(server.asked) == 1


@pytest_twisted.ensureDeferred
async def test_a_body_larger_than_a_head_may_be_is_read(
    server: ScriptedServer, client: RepositoryClient
) -> None:
    server.scripts["GET /api/images"] = lambda _: json_reply(["x" * 3_000_000])
    for _ in range(2):
        assert [len(row) for row in await client.images()] == [3_000_000]
    assert server.connected == 1


@pytest_twisted.ensureDeferred
async def test_pages_that_go_in_circles_have_an_end(
    server: ScriptedServer, client: RepositoryClient
) -> None:
    again = '</api/images?after=1>; rel="next"'
    server.scripts["GET /api/images"] = lambda _: json_reply([], Link=again)
    with pytest.raises(errors.BadReply, match="circles"):
        await client.images()
    assert len(server.asked) == 2


@pytest_twisted.ensureDeferred
async def test_a_web_page_is_not_read_out(server: ScriptedServer, client: RepositoryClient) -> None:
    page = reply(404, b"<html>Apache</html>", Content_Type="text/html; charset=utf-8")
    server.scripts["GET /api/whoami"] = lambda _: page
    with pytest.raises(errors.Missing, match=r"a web page \(404\)"):
        await client.whoami()


@pytest_twisted.ensureDeferred
async def test_a_silent_server_is_left(
    grid: Grid, proxy: CredentialFiles, server: ScriptedServer
) -> None:
    client = make_client(grid, proxy, server.url, stall_seconds=0.2)
    server.scripts["GET /api/whoami"] = lambda _: b""
    with pytest.raises(errors.ConnectionProblem, match="said nothing"):
        await client.whoami()


@pytest_twisted.ensureDeferred
async def test_an_unknown_twisted_is_left_alone(
    server: ScriptedServer, client: RepositoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_flow, "PRIVATE", (*tls_flow.PRIVATE, "_renamed"))
    connecting: Any = client._exchange.endpoint().connect(Factory.forProtocol(Protocol))
    transport = (await connecting).transport
    assert type(transport) is BufferingTLSTransport
    transport.abortConnection()
    server.scripts["GET /api/whoami"] = lambda _: json_reply(ME)
    assert await client.whoami() == ME


@pytest_twisted.ensureDeferred
async def test_nobody_listens(grid: Grid, proxy: CredentialFiles) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"https://localhost:{taken.getsockname()[1]}"
    client = make_client(grid, proxy, url)
    with pytest.raises(errors.ConnectionProblem, match=f"Nothing listens at {url[8:]}"):
        await client.whoami()


@pytest_twisted.ensureDeferred
async def test_there_is_no_such_host(grid: Grid, proxy: CredentialFiles) -> None:
    client = make_client(grid, proxy, "https://no-such-host.invalid:8443")
    with pytest.raises(errors.ConnectionProblem, match=r"no host of the name .*invalid"):
        await client.whoami()


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
@pytest_twisted.ensureDeferred
async def test_a_server_may_be_named_by_its_ipv6_address(
    grid: Grid, proxy: CredentialFiles, tmp_path: Path
) -> None:
    server = ScriptedServer({"GET /api/whoami": lambda _: json_reply(ME)})
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    host(grid.ca, "::1").write_pair(*paths)
    await server.start(reactor, *paths, interface="::1")
    client = make_client(grid, proxy, f"https://[::1]:{server.port}")
    assert await client.whoami() == ME
    assert server.asked[0].headers["host"] == f"[::1]:{server.port}"
    await client.close()
    await server.stop()


@pytest.mark.parametrize(
    ("names", "words"),
    [(("elsewhere.example.org",), "not for localhost"), ((), "not for localhost")],
    ids=["another host", "no name"],
)
@pytest_twisted.ensureDeferred
async def test_a_server_of_another_name_learns_nothing(
    grid: Grid, proxy: CredentialFiles, tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    impostor = ScriptedServer({"GET /api/whoami": lambda _: json_reply({})})
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    host(grid.ca, *names, subject="/C=CA/O=Grid/CN=localhost").write_pair(*paths)
    await impostor.start(reactor, *paths)
    client = make_client(grid, proxy, impostor.url)
    with pytest.raises(errors.ConnectionProblem, match=words):
        await client.whoami()
    assert impostor.asked == []
    await impostor.stop()


@pytest_twisted.ensureDeferred
async def test_a_server_of_an_unknown_ca_learns_nothing(
    grid: Grid, proxy: CredentialFiles, server: ScriptedServer, tmp_path: Path
) -> None:
    stranger = Grid(tmp_path, authority("/C=CA/O=Grid/CN=Another CA"))
    client = make_client(stranger, proxy, server.url)
    with pytest.raises(errors.ConnectionProblem, match="not known"):
        await client.whoami()
    assert (server.connected, server.asked) == (1, []), "it is tried again in vain"


def test_an_expired_proxy_is_found_out_before_connecting(grid: Grid, tmp_path: Path) -> None:
    from tests.credentials import HOUR, now

    old = grid.user().proxy(begins=now() - 2 * HOUR, ends=now() - HOUR).write(tmp_path / "old")
    with pytest.raises(errors.CredentialProblem, match=r"expired.*grid-proxy-init"):
        make_client(grid, CredentialFiles(old, old, "test"), "https://localhost:1")
