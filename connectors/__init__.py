"""One public module for each platform; `_` marks what they share.

A module without an underscore is a platform: it has `Connector` and a policy of the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import httpx

from clickpost.contract import Account
from clickpost.policy.shape import PlatformPolicy
from connectors._api import Api


@cache
def names() -> tuple[str, ...]:
    """Return the platforms that have a connector, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def connector(account: Account, policy: PlatformPolicy, client: httpx.AsyncClient) -> object:
    """Return the connector that speaks for `account`; ask `policy.capabilities` what it can do."""
    module = importlib.import_module(f"connectors.{account.platform}")
    made: object = module.Connector(Api(client, policy), account)
    return made
