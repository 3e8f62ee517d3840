"""The store: alone speaks SQL; every change of a delivery's state is one guarded UPDATE."""

from __future__ import annotations

from clickpost.settings import Settings
from clickpost.store.approvals import Approvals, Asked
from clickpost.store.arrivals import Arrivals
from clickpost.store.assets import Assets, FileFacts
from clickpost.store.budgets import Budgets
from clickpost.store.changes import Changes
from clickpost.store.connections import NewConnection
from clickpost.store.deliveries import Deliveries, DeliveryLine, Started, ToSend
from clickpost.store.drifting import Drifting
from clickpost.store.hooks import Hooks
from clickpost.store.invitations import Invitations, NewInvitation
from clickpost.store.ledger import Broken, Ledger
from clickpost.store.measuring import Measuring
from clickpost.store.members import Members
from clickpost.store.notices import NewChannel, Notices
from clickpost.store.pausing import Pausing
from clickpost.store.people import Named, People
from clickpost.store.posts import Created, NewPost, Posts
from clickpost.store.requests import NewRequest, Requests
from clickpost.store.restores import Restores
from clickpost.store.series import Repeating
from clickpost.store.slots import QueueSlots
from clickpost.store.subscriptions import Subscriptions
from clickpost.store.takedowns import Takedowns
from clickpost.store.tombstones import Tombstones
from clickpost.store.triggers import Turns
from clickpost.store.unknowns import Unknowns
from clickpost.store.vault import Vault
from clickpost.store.watching import Watching

__all__ = [
    "Asked",
    "Broken",
    "Created",
    "DeliveryLine",
    "FileFacts",
    "Named",
    "NewChannel",
    "NewConnection",
    "NewInvitation",
    "NewPost",
    "NewRequest",
    "Started",
    "Store",
    "ToSend",
    "address",
]


class Store(
    Approvals,
    Arrivals,
    Budgets,
    Changes,
    Repeating,
    QueueSlots,
    Posts,
    Assets,
    Unknowns,
    Deliveries,
    Notices,
    People,
    Hooks,
    Requests,
    Members,
    Invitations,
    Drifting,
    Pausing,
    Takedowns,
    Subscriptions,
    Turns,
    Restores,
    Watching,
    Measuring,
    Ledger,
):
    """All that is kept, for one process."""

    @classmethod
    async def of(cls, settings: Settings, *, patience: float = 0.0) -> Store:
        """Open the store that `settings` name; one that is away is waited for, `patience` s."""
        store = await cls.open(address(settings), Vault.of(settings), patience=patience)
        store.policies = settings.policies
        store.tombstones = Tombstones.of(settings, store.vault)
        return store


def address(settings: Settings) -> str:
    """Return the database's URL: the configured one, else that of the embedded server."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return (settings.home / "database.url").read_text().strip()
