"""A repository as seen from afar: one method per route of its REST interface.

Records come as the JSON objects of the interface.  Whatever the server
refuses is raised as the class of :mod:`repoman.errors` that the server
raised; ConnectionProblem, CredentialRefused and BadReply tell of the line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.web.iweb import IPolicyForHTTPS

from repoman.client.credentials import CredentialFiles
from repoman.client.download import Download, RemoteFile
from repoman.client.exchange import Exchange
from repoman.client.partfile import ISink, PartFile
from repoman.client.pending import Pending
from repoman.client.progress import Progress
from repoman.client.records import Fields, Record, many, one, stored_sha256
from repoman.client.renewal import RenewableTLS
from repoman.client.route import Elsewhere, Route
from repoman.client.source import FileSource, ISource
from repoman.client.upload import Upload, rehearse
from repoman.errors import BadReply, Missing
from repoman.model import ImageRef
from repoman.tls_public import WidelyTrustingTLS


class RepositoryClient:
    """Talks to one repository as one user."""

    def __init__(
        self,
        reactor: Any,
        base_url: str,
        tls: IPolicyForHTTPS,
        elsewhere: Callable[[], IPolicyForHTTPS] | None = None,
        **tuning: Any,
    ) -> None:
        """Nothing is connected yet.

        :param base_url: ``https://host:port``.
        :param tls: the user's credential and the CAs to believe.
        :param elsewhere: makes a policy without a credential, for the store that the
            repository may send us to; ``None``: all bytes come from the repository.
        :param tuning: ``retry_delays``, ``transfer_delays`` and ``stall_seconds``
            of :class:`~repoman.client.exchange.Exchange`, in seconds.
        """
        self._exchange = Exchange(reactor, base_url, tls, **tuning)
        self._elsewhere = Elsewhere(reactor, elsewhere, tuning) if elsewhere else None

    @classmethod
    def with_files(
        cls,
        reactor: Any,
        base_url: str,
        credential: CredentialFiles | None,
        ca_directory: Path,
        **tuning: Any,
    ) -> RepositoryClient:
        """A client that shows a credential read from files, again when they are renewed.

        :param credential: ``None``: nothing, as anybody.
        :raises CredentialProblem: missing, expired, or open to others.
        :raises TrustUnreadable: the CA directory is of no use.
        """
        tls = RenewableTLS(credential, ca_directory)
        return cls(reactor, base_url, tls, partial(WidelyTrustingTLS, ca_directory), **tuning)

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.close()
        if self._elsewhere is not None:
            await self._elsewhere.close()

    # Users

    async def whoami(self, **options: Any) -> Record:
        """The caller's own record; with ``view="full"`` also the credential, as it was seen."""
        return await self._user_record("GET", "/api/whoami", params=options)

    async def users(self, **filters: Any) -> list[Any]:
        """All users: URLs, or records with ``view="full"``."""
        return await self._listing("/api/users", filters)

    async def create_user(self, fields: Fields) -> Record:
        """A new user; ``user_name`` and ``cert_dn`` are required."""
        return await self._user_record("POST", "/api/users", json=fields)

    async def user(self, name: str) -> Record:
        """One user."""
        return await self._user_record("GET", _user(name))

    async def modify_user(self, name: str, fields: Fields) -> Record:
        """Change a user."""
        return await self._user_record("POST", _user(name), json=fields)

    async def delete_user(self, name: str) -> None:
        """Remove a user with all images."""
        await self._call("DELETE", _user(name))

    async def user_images(self, name: str, **filters: Any) -> list[Any]:
        """Images that a user owns, of those that the caller may read."""
        return await self._listing(_user(name) + "/images", filters)

    async def user_groups(self, name: str) -> list[str]:
        """URLs of a user's groups."""
        return await self._listing(_user(name) + "/groups", {})

    async def user_permissions(self, name: str) -> list[str]:
        """What a user's groups permit."""
        return await self._listing(_user(name) + "/permissions", {})

    async def shared_with_user(self, name: str, **filters: Any) -> list[Any]:
        """Images that others share with a user, directly or through a group."""
        return await self._listing(_user(name) + "/shared", filters)

    async def shared_by_user(self, name: str, **filters: Any) -> list[Any]:
        """Images of a user that are shared with anybody."""
        return await self._listing(_user(name) + "/sharing", filters)

    # Groups

    async def groups(self, **filters: Any) -> list[Any]:
        """All groups: URLs, or records with ``view="full"``."""
        return await self._listing("/api/groups", filters)

    async def create_group(self, fields: Fields) -> Record:
        """A new group; ``name`` is required."""
        return await self._named_record("POST", "/api/groups", json=fields)

    async def group(self, name: str) -> Record:
        """One group."""
        return await self._named_record("GET", _group(name))

    async def modify_group(self, name: str, fields: Fields) -> Record:
        """Rename a group."""
        return await self._named_record("POST", _group(name), json=fields)

    async def delete_group(self, name: str) -> None:
        """Remove a group."""
        await self._call("DELETE", _group(name))

    async def group_users(self, name: str, **filters: Any) -> list[Any]:
        """A group's members."""
        return await self._listing(_group(name) + "/users", filters)

    async def group_permissions(self, name: str) -> list[str]:
        """What a group permits."""
        return await self._listing(_group(name) + "/permissions", {})

    async def shared_with_group(self, name: str, **filters: Any) -> list[Any]:
        """Images shared with a group, of those that the caller may read."""
        return await self._listing(_group(name) + "/shared", filters)

    async def add_member(self, group: str, user: str) -> None:
        """Put a user into a group."""
        await self._call("POST", f"{_group(group)}/users/{_segment(user)}")

    async def remove_member(self, group: str, user: str) -> None:
        """Take a user out of a group."""
        await self._call("DELETE", f"{_group(group)}/users/{_segment(user)}")

    async def add_permission(self, group: str, permission: str) -> None:
        """Let a group's members do something more."""
        await self._call("POST", f"{_group(group)}/permissions/{_segment(permission)}")

    async def remove_permission(self, group: str, permission: str) -> None:
        """Let a group's members do something less."""
        await self._call("DELETE", f"{_group(group)}/permissions/{_segment(permission)}")

    # Images

    async def images(self, **filters: Any) -> list[Any]:
        """Images that the caller may read: URLs, or records with ``view="full"``."""
        return await self._listing("/api/images", filters)

    async def create_image(self, fields: Fields) -> Record:
        """A new image without a file; ``name`` is required."""
        return await self._named_record("POST", "/api/images", json=fields)

    async def image(self, ref: ImageRef, **options: Any) -> Record:
        """One image; with ``view="full"`` also its file for each hypervisor."""
        return await self._named_record("GET", _image(ref), params=options)

    async def modify_image(self, ref: ImageRef, fields: Fields) -> Record:
        """Change what is said about an image."""
        return await self._named_record("POST", _image(ref), json=fields)

    async def delete_image(self, ref: ImageRef) -> None:
        """Remove an image and its files."""
        await self._call("DELETE", _image(ref))

    async def share_with_user(self, ref: ImageRef, user: str) -> None:
        """Let a user read an image."""
        await self._call("POST", f"{_image(ref)}/share/user/{_segment(user)}")

    async def unshare_with_user(self, ref: ImageRef, user: str) -> None:
        """Take that back."""
        await self._call("DELETE", f"{_image(ref)}/share/user/{_segment(user)}")

    async def share_with_group(self, ref: ImageRef, group: str) -> None:
        """Let a group's members read an image."""
        await self._call("POST", f"{_image(ref)}/share/group/{_segment(group)}")

    async def unshare_with_group(self, ref: ImageRef, group: str) -> None:
        """Take that back."""
        await self._call("DELETE", f"{_image(ref)}/share/group/{_segment(group)}")

    # Offers

    async def offers(self) -> list[Any]:
        """What the caller offers and is offered."""
        return many(await self._call("GET", "/api/offers"), Record)

    async def make_offer(self, fields: Fields) -> Record:
        """Offer an image; ``name`` and ``recipient`` are required, ``owner`` is the caller."""
        return await self._named_record("POST", "/api/offers", json=fields)

    async def offer(self, ref: ImageRef) -> Record:
        """One offer, by the caller or to them; the owner is to be named."""
        return await self._named_record("GET", _offer(ref))

    async def accept_offer(self, ref: ImageRef, fields: Fields) -> Record:
        """Become an image's owner, and return it; ``name`` is another one, ``version`` was seen."""
        return await self._named_record("POST", _offer(ref), json=fields)

    async def end_offer(self, ref: ImageRef) -> None:
        """Decline what is offered to the caller, or withdraw what they offer."""
        await self._call("DELETE", _offer(ref))

    # Files

    async def get_file(
        self,
        ref: ImageRef,
        target: Path | ISink,
        hypervisor: str | None = None,
        progress: Progress | None = None,
        streams: int = 1,
    ) -> RemoteFile:
        """Fetch an image's file.

        :param target: a path, where it appears only when all of it is there
            and verified, behind a link where the link leads; or something else
            that takes bytes.
        :param streams: over how many connections at once.
        :raises DigestMismatch: the bytes are not those of the image.
        :raises Invalid: the path is that of a device, a pipe or a directory.
        """
        path = await self._file_path(ref, hypervisor)
        sink = PartFile(target) if isinstance(target, Path) else target
        route = Route(self._exchange, path, self._elsewhere)
        download = Download(route, sink, progress or Progress(), streams)
        return await download.run()

    async def put_file(
        self,
        ref: ImageRef,
        source: Path | ISource,
        hypervisor: str | None = None,
        progress: Progress | None = None,
        memory: Path | None = None,
    ) -> str:
        """Send an image's file and answer its SHA-256 (hex); a refusal comes before the first byte.

        :param source: a file or a disk, or bytes from elsewhere.
        :param memory: a directory in which to remember an upload that is cut
            off, so that the same call goes on with it, in another process too.
        :raises DigestMismatch: the server did not receive what was sent.
        """

        async def stored() -> str | None:
            return stored_sha256(await self.image(ref, view="full"), hypervisor)

        path = await self._file_path(ref, hypervisor)
        opened = FileSource(source) if isinstance(source, Path) else source
        try:
            pending = Pending(memory, self._exchange.base_url + path)
            try:
                upload = Upload(
                    self._exchange, path, opened, pending, stored, progress or Progress()
                )
                return await upload.run()
            finally:
                pending.close()
        finally:
            opened.close()

    async def try_file(
        self, ref: ImageRef, sizes: Sequence[int], hypervisor: str | None = None
    ) -> None:
        """Ask whether files of these sizes (bytes) could be sent now, and leave nothing behind.

        :raises RepomanError: the server's refusal of one of them.
        """
        await rehearse(self._exchange, await self._file_path(ref, hypervisor), sizes)

    async def uploads(self) -> list[Any]:
        """The caller's unfinished uploads."""
        return many(await self._call("GET", "/api/uploads"), Record)

    async def give_up_upload(self, ref: ImageRef, hypervisor: str | None, memory: Path) -> None:
        """End what :meth:`put_file` remembers of an upload that was cut off, and its reservation.

        :raises Conflict: another process goes on with it.
        """
        path = await self._file_path(ref, hypervisor)
        pending = Pending(memory, self._exchange.base_url + path)
        try:
            _, place = pending.recall()
            if place:
                with suppress(Missing):
                    await self._call("DELETE", place)
                pending.forget()
        finally:
            pending.close()

    async def _file_path(self, ref: ImageRef, hypervisor: str | None) -> str:
        owner = ref.owner
        if hypervisor and owner is None:
            # Only a path of three segments names both, and it begins with the owner.
            owner = (await self.whoami())["user_name"]
        segments = (owner, hypervisor, ref.name)
        return "/api/images/raw/" + "/".join(_segment(s) for s in segments if s)

    # How

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        return await self._exchange.json(method, path, **options)

    async def _user_record(self, method: str, path: str, **options: Any) -> Record:
        return one(await self._call(method, path, **options), "user_name")

    async def _named_record(self, method: str, path: str, **options: Any) -> Record:
        return one(await self._call(method, path, **options), "name")

    async def _listing(self, path: str, filters: Mapping[str, Any]) -> list[Any]:
        """All pages of a listing."""
        kind = Record if filters.get("view") == "full" else str
        page, following = await self._exchange.json_and_next("GET", path, params=filters)
        rows, seen = many(page, kind), {path}
        while following:
            if following in seen:
                raise BadReply("The pages of the server's listing go in circles.")
            seen.add(following)
            page, following = await self._exchange.json_and_next("GET", following)
            rows.extend(many(page, kind))
        return rows


def _segment(name: str) -> str:
    return quote(name, safe="")


def _user(name: str) -> str:
    return f"/api/users/{_segment(name)}"


def _group(name: str) -> str:
    return f"/api/groups/{_segment(name)}"


def _image(ref: ImageRef) -> str:
    owner = f"{_segment(ref.owner)}/" if ref.owner else ""
    return f"/api/images/{owner}{_segment(ref.name)}"


def _offer(ref: ImageRef) -> str:
    return f"/api/offers/{_segment(ref.owner or '')}/{_segment(ref.name)}"
