"""Under sudo: whose files root believes, and what is done with the rights of who called it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from repoman.errors import Misconfigured

NO_GROUP = 65534
"""The group of an account that this machine does not know: nobody's."""


def sudo_uid(environ: Mapping[str, str], uid: int | None = None) -> int | None:
    """The number of the account that called sudo, if that is not root.

    :param uid: of this process (default: its effective one): only root is under sudo.
    :raises Misconfigured: ``$SUDO_UID`` is no account's number.
    """
    if (os.geteuid() if uid is None else uid) != 0:
        return None
    if not (text := environ.get("SUDO_UID")):
        account = sudo_caller(environ)
        return account.pw_uid if account else None
    # 2**32 - 1 is -1, which is "no account" to the kernel.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**32 - 1):
        raise Misconfigured(
            [f"$SUDO_UID is {text[:100]!r}, which is no account's number: call sudo again, or"
             " unset it."]
        )  # fmt: skip
    return int(text) or None


def sudo_caller(environ: Mapping[str, str]) -> pwd.struct_passwd | None:
    """The account that called sudo to become root, if this machine knows it and it is not root."""
    user = environ.get("SUDO_USER")
    # "sudo -u bob" makes nobody take up the caller's configuration but root.
    if os.geteuid() != 0 or not user or user == "root":
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError:
        return None


def believed_owners(environ: Mapping[str, str], uid: int | None = None) -> frozenset[int]:
    """The accounts whose files this process takes for its own: its own, root, who called sudo.

    Anybody can lay a file where a credential is looked for, in /tmp.

    :param uid: of this process (default: its effective one).
    :raises Misconfigured: ``$SUDO_UID`` is no account's number.
    """
    own = os.geteuid() if uid is None else uid
    caller = sudo_uid(environ, own)
    return frozenset({0, own}) if caller is None else frozenset({0, own, caller})


@contextmanager
def rights_of_caller(environ: Mapping[str, str]) -> Iterator[None]:
    """Under sudo, be who called it, in what their configuration names.

    Not chown afterwards: root would follow the links that are in there.

    :raises Misconfigured: ``$SUDO_UID`` is no account's number.
    """
    caller = sudo_uid(environ)
    if caller is None:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    _join_groups_of(caller, sudo_caller(environ))
    os.seteuid(caller)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _join_groups_of(uid: int, account: pwd.struct_passwd | None) -> None:
    if account is not None and account.pw_uid == uid:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setegid(account.pw_gid)
    else:
        os.setgroups([])
        os.setegid(NO_GROUP)
