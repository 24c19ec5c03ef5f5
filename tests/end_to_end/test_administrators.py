"""The file of administrators, over the starts of a real daemon."""

from __future__ import annotations

from pathlib import Path

from tests.server import Daemon


def test_the_administrators_file_undoes_nothing_and_ends_no_start(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    file = tmp_path / "admins"
    second, third = daemon.person("Second", "second"), daemon.person("Third", "third")
    lines = [file.read_text(), f"second,,{second.dn}\n", f"third,third@example.org,{third.dn}\n"]
    file.write_text("".join(lines))
    with daemon.running():
        assert second.ask("GET", "/api/whoami").json["user_name"] == "second"
        assert daemon.admin.ask("DELETE", "/api/users/second").status == 200
        renamed = daemon.admin.ask("POST", "/api/users/third", form={"user_name": "other"})
        assert renamed.status == 200
        plain = daemon.newcomer(email="plain@example.org")
    collisions = {
        plain.name: "/CN=New Name", "kvm": "/CN=New Word", "newdn": plain.dn,
        "newaddress,plain@example.org": "/CN=New Address",
    }  # fmt: skip
    for name, dn in collisions.items():
        lines.append(f"{name},{dn}\n" if "," in name else f"{name},,{dn}\n")
    file.write_text("".join(lines))
    for start in (1, 2):
        daemon.log.write_text("")
        with daemon.running():
            known = daemon.admin.ask("GET", "/api/users").json
            names = {url.rsplit("/", 1)[1] for url in known}
            assert names == {daemon.admin.name, "other", plain.name}
            assert second.ask("GET", "/api/whoami").status == 403
            assert third.ask("GET", "/api/whoami").json["user_name"] == "other"
            groups = plain.ask("GET", f"/api/users/{plain.name}").json["groups"]
            assert not any(url.endswith("/admins") for url in groups)
            said = daemon.log.read_text()
            for name in collisions:
                line = f"[accounts] admins: {name.partition(',')[0]} was not created: "
                # A DN that is known was looked at once, and is not told again.
                assert (line in said) == (name != "newdn" or start == 1)
