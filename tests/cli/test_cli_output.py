"""The printed forms, letter by letter, and the exit codes."""

from __future__ import annotations

import io
import json

import pytest

from repoman import errors
from repoman.cli import output
from repoman.cli.access import read_host
from repoman.cli.bar import Bar
from repoman.cli.exits import Usage, exit_code, report

IMAGE = {
    "checksum": {"type": None, "value": None},
    "description": None,
    "expires": None,
    "file_url": "https://vmrepo.cloud.nrc.ca/api/images/raw/impeyr/vm019.sao.nrc.ca",
    "http_file_url": None,
    "hypervisor": None,
    "modified": "Tue Mar  8 20:44:17 2011",
    "name": "vm019.sao.nrc.ca",
    "os_arch": None,
    "os_type": None,
    "os_variant": None,
    "owner": "https://vmrepo.cloud.nrc.ca/api/users/impeyr",
    "owner_user_name": "impeyr",
    "raw_file_uploaded": False,
    "read_only": False,
    "shared_with": {"groups": [], "users": []},
    "size": None,
    "unauthenticated_access": False,
    "uploaded": "Tue Mar  8 20:44:17 2011",
    "uuid": "d5c71b1749c411e087980025648d3a02",
    "version": 0,
}


def test_describe_image_is_the_dict_of_the_slides() -> None:
    assert output.as_python(dict(reversed(IMAGE.items()))) == (
        """\
{'checksum': {'type': None, 'value': None},
 'description': None,
 'expires': None,
 'file_url': 'https://vmrepo.cloud.nrc.ca/api/images/raw/impeyr/vm019.sao.nrc.ca',
 'http_file_url': None,
 'hypervisor': None,
 'modified': 'Tue Mar  8 20:44:17 2011',
 'name': 'vm019.sao.nrc.ca',
 'os_arch': None,
 'os_type': None,
 'os_variant': None,
 'owner': 'https://vmrepo.cloud.nrc.ca/api/users/impeyr',
 'owner_user_name': 'impeyr',
 'raw_file_uploaded': False,
 'read_only': False,
 'shared_with': {'groups': [], 'users': []},
 'size': None,
 'unauthenticated_access': False,
 'uploaded': 'Tue Mar  8 20:44:17 2011',
 'uuid': 'd5c71b1749c411e087980025648d3a02',
 'version': 0}"""
    )


def test_an_image_in_full_is_right_aligned_and_sorted() -> None:
    lines = output.as_lines(IMAGE).splitlines()
    assert len(lines) == 21
    assert lines[0] == "              checksum : type: ; value: "
    assert lines[7] == "                  name : vm019.sao.nrc.ca"
    assert lines[17] == "unauthenticated_access : False"


def test_images_in_a_table() -> None:
    big = {**IMAGE, "name": "b", "hypervisor": "kvm", "size": 5 * 2**30, "description": "SL 6"}
    assert output.images_table([IMAGE, big]).splitlines() == [
        "Image Name        Owner   Hypervisor  Size     Last Modified             Description",
        "vm019.sao.nrc.ca  impeyr              -        Tue Mar  8 20:44:17 2011",
        "b                 impeyr  kvm         5.0 GiB  Tue Mar  8 20:44:17 2011  SL 6",
    ]


def test_columns_stand_below_each_other_in_any_script() -> None:
    text = output.table(("A", "B"), [("漢字", "x"), ("e\u0301", "x"), ("abcd", "x")])
    assert text == "A     B\n漢字  x\ne\u0301     x\nabcd  x"


def test_an_empty_table_is_its_head() -> None:
    assert output.images_table([]).startswith("Image Name  Owner")


def test_no_description_plays_with_the_terminal() -> None:
    evil = {**IMAGE, "description": "\x1b]0;pwned\x07\x1b[2J"}
    for text in (output.images_table([evil]), output.as_lines(evil), output.as_python(evil)):
        assert "\x1b" not in text
        assert "\x07" not in text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10 * 2**40, "10.0 TiB"),
     (2**52, "4096.0 TiB")],
)  # fmt: skip
def test_sizes_for_people(count: int | None, text: str) -> None:
    assert output.size(count) == text


def test_for_a_program_stderr_has_json_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    output.Output(as_json=True).say("Compressing ...")
    bar = Bar("vm", as_json=True)
    bar.begin(10, 0)
    bar.waiting(errors.Unavailable("Soon\x1b."), 2.0)
    out, err = capsys.readouterr()
    assert (out, [json.loads(line) for line in err.splitlines()]) == (
        "",
        [
            {"message": "Compressing ..."},
            {"file": "vm", "message": "Soon?. Trying again in 2 s ..."},
        ],
    )


def test_who_waits_for_a_turn_says_so_once_until_something_moves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bar = Bar("vm")
    for _ in range(3):
        bar.begin(10, 0)
        bar.waiting(errors.TooManyUploads("Four run."), None)
    bar.begin(10, 0)
    bar.advance(5)
    bar.waiting(errors.TooManyUploads("Four run."), None)
    assert capsys.readouterr().err == "Four run. Waiting for a turn ...\n" * 2


def test_what_is_done_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    output.Output(as_json=False).done("Renaming image.", image=IMAGE)
    assert capsys.readouterr().out == "[OK]     Renaming image.\n"
    output.Output(as_json=True).done("Renaming image.", image=IMAGE)
    assert json.loads(capsys.readouterr().out) == {"done": "Renaming image.", "image": IMAGE}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Invalid("x"), 1),
        (errors.BadReply("x"), 1),
        (OSError(28, "No space left on device"), 1),
        (Usage("x"), 2),
        (errors.Misconfigured(["x"]), 2),
        (errors.Missing("x"), 3),
        (errors.Expired("x"), 3),
        (errors.NotIdentified("x"), 4),
        (errors.CredentialProblem("x"), 4),
        (errors.CredentialRefused("x"), 4),
        (errors.NotPermitted("x"), 5),
        (errors.Protected("x"), 5),
        (errors.AlreadyExists("x"), 6),
        (errors.WrongOffset("x"), 6),
        (errors.ConnectionProblem("x"), 7),
        (errors.DatabaseUnavailable("x"), 7),
        (errors.TooManyUploads("x"), 7),
        (errors.DigestMismatch("x"), 8),
    ],
)
def test_exit_codes(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_a_failure_has_three_parts() -> None:
    stream = io.StringIO()
    error = errors.NotPermitted("Only the owner may delete an image.\x1b")
    assert report(error, "Removing image.", "Server h:1, credential p.", stream) == 5
    assert stream.getvalue() == (
        "[FAILED] Removing image.\n"
        "         Only the owner may delete an image.?\n"
        "         Server h:1, credential p.\n"
    )


def test_a_failure_as_json() -> None:
    stream = io.StringIO()
    assert report(OSError(2, "Gone", "/f"), "Uploading.", "", stream, as_json=True) == 1
    told = json.loads(stream.getvalue())
    assert (told["error"], told["reasons"], told["exit_code"]) == (
        "FileNotFoundError", ["/f: Gone"], 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ("", None)),
        ("h", ("h", None)),
        ("h.example.org:443", ("h.example.org", 443)),
        ("https://h:443/", ("h", 443)),
        ("[::1]:8443", ("::1", 8443)),
        ("::1", ("::1", None)),
    ],
)
def test_a_server_is_named(text: str, place: tuple[str, int | None]) -> None:
    assert read_host(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "no such host",
        "lo%cal",
        "http://h",
        "https://h/path",
        "u@h",
        "h:port",
        "h:99999",
        "ftp://h",
        "https://",
        "h..example.org",
        "xn--ü",
        "h" * 64,
        "[::1",
        "a:b:c",
    ],
)
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(Usage, match="is no server"):
        read_host(text)
