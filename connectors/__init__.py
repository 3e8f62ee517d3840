"""One public module for each platform; `_` marks what they share.

A module without an underscore is a platform: it has `Connector` and a policy of the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import httpx

from clickpost.budget import Reading
from clickpost.contract import CAPABILITIES, Account
from clickpost.policy.shape import PlatformPolicy
from connectors._api import Api


@cache
def names() -> tuple[str, ...]:
    """Return the platforms that have a connector, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


@cache
def capabilities() -> Mapping[str, frozenset[str]]:
    """Return what each connector's code can do, in the words of the policies."""
    return {name: capabilities_of(_module(name).Connector) for name in names()}


def capabilities_of(kind: type) -> frozenset[str]:
    """Return the words for the protocols that a connector's class satisfies."""
    return frozenset(word for word, protocol in CAPABILITIES.items() if issubclass(kind, protocol))


def connector(
    account: Account,
    policy: PlatformPolicy,
    client: httpx.AsyncClient,
    heard: Callable[[Reading], None] | None = None,
) -> object:
    """Return the connector that speaks for `account`; ask `policy.capabilities` what it can do.

    `heard` gets what answers say of budgets.
    """
    made: object = _module(account.platform).Connector(Api(client, policy, heard), account)
    return made


def _module(name: str) -> Any:
    return importlib.import_module(f"connectors.{name}")
