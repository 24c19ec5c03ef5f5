"""What happens on each request: the application, on top of the seams.

Nothing here knows of HTTP, SQL or files.
"""

from __future__ import annotations

from attrs import frozen

from repoman.repository.accounts import Accounts
from repoman.repository.audit import Audit
from repoman.repository.files import Files
from repoman.repository.groups import Groups
from repoman.repository.images import Images
from repoman.repository.offers import Offers
from repoman.repository.transfers import Transfers
from repoman.repository.uploads import Uploads
from repoman.repository.users import Users


@frozen
class Repository:
    """The whole application, for the edges."""

    accounts: Accounts
    users: Users
    groups: Groups
    images: Images
    files: Files
    uploads: Uploads
    audit: Audit
    transfers: Transfers
    offers: Offers

    async def renew_leases(self) -> None:
        """Tell the records that the uploads that run here live."""
        await self.files.renew_leases()
        await self.uploads.renew_leases()
