"""What of an original Repoman can be taken over, and what somebody must decide.

Pure: rows and file names in, a plan out.  Where two things claim the same, none gets it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any

from attrs import define, field, frozen

from repoman.errors import Invalid
from repoman.gsi.dn import parse_dn
from repoman.model import (
    DEFAULT_HYPERVISOR,
    KNOWN_HYPERVISORS,
    PERMISSIONS,
    RESERVED_WORDS,
    check_image_name,
    check_name,
)
from repoman.records import NewImage
from repoman.texts import TEXT_LIMITS
from repoman.user_records import NewGroup, NewUser

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]
CHECKABLE = {"md5": 32, "sha256": 64, "sha512": 128, "adler32": 8}
"""The kinds of checksum that can be compared, with their length in hex digits."""


@frozen
class PlannedFile:
    """A file of the original's store.

    :ivar file: its name there.
    :ivar expected: digests that it must have, by name.
    """

    hypervisor: str
    file: str
    expected: Mapping[str, str] = field(factory=dict)


@frozen
class PlannedImage:
    """An image with its files and who it is shared with."""

    new: NewImage
    read_only: bool
    files: tuple[PlannedFile, ...]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@define
class Plan:
    """What can be taken over.

    :ivar findings: what cannot, or is for somebody to look at, a line each.
    """

    users: list[NewUser] = field(factory=list)
    groups: list[NewGroup] = field(factory=list)
    images: list[PlannedImage] = field(factory=list)
    findings: list[str] = field(factory=list)


def plan(rows: Tables, files: Mapping[str, int], now: datetime) -> Plan:
    """Sort out what an original Repoman holds.

    :param rows: of its tables, by table.
    :param files: of its image directory: name to size in bytes.
    """
    made = Plan()
    names = _users(made, rows, now)
    groups = _groups(made, rows, names)
    _images(made, rows, files, names, groups)
    return made


def _by_id(rows: Iterable[Row]) -> dict[Any, Row]:
    return {row["id"]: row for row in rows}


def _pairs(rows: Iterable[Row], one: str, other: str) -> dict[Any, list[Any]]:
    found = defaultdict(list)
    for row in rows:
        found[row[one]].append(row[other])
    return found


def _several(values: Iterable[Any]) -> set[Any]:
    return {value for value, count in Counter(v for v in values if v).items() if count > 1}


def _fault(check: Callable[[], object]) -> str:
    try:
        check()
    except Invalid as error:
        return error.message
    return ""


def _shortened(made: Plan, what: str, row: Row) -> Row:
    """The row with texts as long as they may be; what is cut off is told."""
    found = dict(row)
    for name, limit in TEXT_LIMITS.items():
        if isinstance(text := row.get(name), str) and len(data := text.encode()) > limit:
            made.findings.append(
                f"{what}: its {name} has {len(data)} bytes; only {limit} are taken over"
            )
            found[name] = data[:limit].decode("utf-8", "ignore")
    return found


def moment(value: Any) -> datetime | None:
    """A time of the original's: a string of SQLite's, or a time without a zone, in UTC."""
    if not value:
        return None
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _users(made: Plan, rows: Tables, now: datetime) -> dict[Any, str]:
    certificates, quotas = _by_id(rows["certificate"]), _by_id(rows["quota"])
    living = [row for row in rows["user"] if not row["deleted"]]
    made.findings += [f"user {r['user_name']}: is deleted" for r in rows["user"] if r["deleted"]]
    dns = {
        r["id"]: str(certificates.get(r["certificate_id"], {}).get("client_dn") or "")
        for r in living
    }
    shared_dns, shared_names = _several(dns.values()), _several(r["user_name"] for r in living)
    shared_mails = _several(row["email"] for row in living)
    names = {}
    for row in living:
        name, dn = row["user_name"], dns[row["id"]]
        faults = [
            _fault(partial(check_name, "user", name)),
            name in shared_names and "several users have this name",
            name in KNOWN_HYPERVISORS and "this is the name of a hypervisor",
            name in RESERVED_WORDS and "this is a reserved word",
            not dn and "has no DN, so nobody could log in",
            dn and _fault(partial(parse_dn, dn)),
            dn in shared_dns and f"several users have the DN {dn}",
            row["email"] in shared_mails and f"several users have the address {row['email']}",
        ]
        if told := [fault for fault in faults if fault]:
            made.findings.append(f"user {name}: {'; '.join(map(str, told))}")
            continue
        if row["quota_id"] in quotas:
            limit = quotas[row["quota_id"]]["max_storage"]
            made.findings.append(f"user {name}: set the quota by hand: {limit}, of unknown unit")
        over = moment(row["expires"])
        if over is not None and over <= now:
            made.findings.append(f"user {name}: has expired; is suspended here")
        row = _shortened(made, f"user {name}", row)
        issuer = certificates[row["certificate_id"]]["issuer_dn"]
        made.users.append(
            NewUser(
                name, (parse_dn(dn),), issuer_dn=_issuer(issuer, dn), full_name=row["full_name"],
                email=row["email"] or None,
                suspended=bool(row["suspended"]) or (over is not None and over <= now),
            )
        )  # fmt: skip
        names[row["id"]] = name
    return names


def _issuer(issuer: str | None, dn: str) -> str | None:
    """The CA, unless a proxy's issuer was noted, who is the user."""
    if not issuer or dn.startswith(issuer) or _fault(lambda: parse_dn(issuer)):
        return None
    return parse_dn(issuer)


def _groups(made: Plan, rows: Tables, names: Mapping[Any, str]) -> dict[Any, str]:
    permissions = {row["id"]: row["permission_name"] for row in rows["permission"]}
    members = _pairs(rows["user_group_association"], "group_id", "user_id")
    permitted = _pairs(rows["group_permission_association"], "group_id", "permission_id")
    shared, found = _several(row["name"] for row in rows["groups"]), {}
    for row in rows["groups"]:
        name = row["name"]
        fault = _fault(partial(check_name, "group", name))
        if fault or name in shared:
            made.findings.append(f"group {name}: {fault or 'several groups have this name'}")
            continue
        words = {str(permissions.get(one)) for one in permitted[row["id"]]}
        if unknown := sorted(words - set(PERMISSIONS)):
            made.findings.append(f"group {name}: there is no permission {', '.join(unknown)}")
        users = tuple(names[one] for one in members[row["id"]] if one in names)
        made.groups.append(NewGroup(name, users, tuple(sorted(words & set(PERMISSIONS)))))
        found[row["id"]] = name
    return found


def _hypervisors(row: Row) -> list[str]:
    words = [word.strip() for word in (row["hypervisor"] or "").split(",")]
    return list(dict.fromkeys(filter(None, words))) or [DEFAULT_HYPERVISOR]


def _images(
    made: Plan,
    rows: Tables,
    files: Mapping[str, int],
    names: Mapping[Any, str],
    groups: Mapping[Any, str],
) -> None:
    owners = {row["id"]: row["user_name"] for row in rows["user"]}
    living = [row for row in rows["image"] if not row["deleted"]]
    for row in rows["image"]:
        if row["deleted"]:
            made.findings.append(f"image {owners.get(row['owner_id'])}/{row['name']}: is deleted")
    claims = defaultdict(list)
    for row in living:
        for hypervisor in _hypervisors(row):
            path = f"{owners.get(row['owner_id'])}/{row['name']}"
            claims[f"{owners.get(row['owner_id'])}_{row['name']}_{hypervisor}"].append(path)
    twice = _several((row["owner_id"], row["name"]) for row in living)
    users = set(names.values())
    for row in living:
        path = f"{owners.get(row['owner_id'])}/{row['name']}"
        faults = [
            row["owner_id"] not in names and "its owner is not taken over",
            (row["owner_id"], row["name"]) in twice and "its owner has several of this name",
            _fault(partial(check_image_name, row["name"])),
            *(_hypervisor_fault(word, users) for word in _hypervisors(row)),
        ]
        if told := [fault for fault in faults if fault]:
            made.findings.append(f"image {path}: {'; '.join(map(str, told))}")
            continue
        made.images.append(_image(made, rows, row, names, groups, files, claims))
    for file in sorted(set(files) - set(claims)):
        made.findings.append(f"file {file}: no image claims it")


def _hypervisor_fault(word: str, users: Collection[str]) -> str:
    if word in users:
        return f"its hypervisor {word} has the name of a user"
    if word in RESERVED_WORDS:
        return f"its hypervisor {word} is a reserved word"
    return _fault(lambda: check_name("hypervisor", word))


def _image(
    made: Plan,
    rows: Tables,
    row: Row,
    names: Mapping[Any, str],
    groups: Mapping[Any, str],
    files: Mapping[str, int],
    claims: Mapping[str, list[str]],
) -> PlannedImage:
    share = _by_id(rows["image_share"]).get(row["shared_id"])
    key = share["id"] if share and share["enabled"] else None
    shared_users = _pairs(rows["imageshare_user_association"], "imageshare_id", "user_id")[key]
    shared_groups = _pairs(rows["imageshare_group_association"], "imageshare_id", "group_id")[key]
    owner, listed = names[row["owner_id"]], _hypervisors(row)
    row = _shortened(made, f"image {owner}/{row['name']}", row)
    new = NewImage(
        owner=owner, name=row["name"], hypervisors=tuple(listed),
        description=row["description"], os_variant=row["os_variant"], os_type=row["os_type"],
        os_arch=row["os_arch"], expires=moment(row["expires"]),
        unauthenticated_access=bool(row["unauthenticated_access"]),
    )  # fmt: skip
    return PlannedImage(
        new,
        bool(row["read_only"]),
        tuple(_files(made, rows, row, f"{owner}/{row['name']}", listed, files, claims)),
        tuple(names[one] for one in shared_users if one in names),
        tuple(groups[one] for one in shared_groups if one in groups),
    )


def _files(
    made: Plan,
    rows: Tables,
    row: Row,
    path: str,
    listed: list[str],
    files: Mapping[str, int],
    claims: Mapping[str, list[str]],
) -> Iterable[PlannedFile]:
    checksum = _by_id(rows["checksum"]).get(row["checksum_id"])
    only = len(listed) == 1
    for hypervisor in listed:
        file = f"{path.replace('/', '_', 1)}_{hypervisor}"
        others = [one for one in claims[file] if one != path]
        if file not in files:
            if row["raw_uploaded"] and only:
                made.findings.append(f"image {path}: its file {file} is missing")
        elif others:
            made.findings.append(f"image {path}: its file {file} is also that of {others[0]}")
        elif not row["raw_uploaded"]:
            made.findings.append(f"image {path}: there is a file {file}, but none was uploaded")
        elif only and row["size"] and row["size"] != files[file]:
            made.findings.append(
                f"image {path}: its file {file} has {files[file]} bytes instead of {row['size']}"
            )
        else:
            yield PlannedFile(hypervisor, file, _expected(checksum) if only else {})


def _expected(checksum: Row | None) -> Mapping[str, str]:
    # The original also "voided" checksums: what is none was not known.
    if checksum is None:
        return {}
    kind = str(checksum["ctype"]).lower().replace("-", "")
    value = str(checksum["cvalue"]).strip().lower()
    known = re.fullmatch(r"[0-9a-f]+", value) and len(value) == CHECKABLE.get(kind)
    return {kind: value} if known else {}
