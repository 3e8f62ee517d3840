"""What the suite must know of a platform and cannot find out: one file for each, `CASE` in it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from clickpost.errors import PlatformError, Reauthorize


@dataclass(frozen=True)
class Case:
    """How the platform's stand-in is steered, and where the platform is unlike the others."""

    #: The stand-in's word for the one request that makes a post visible.
    publish_step: str
    #: Its word for the request that renews a token; None where tokens do not end.
    refresh_step: str | None = None
    #: What an ended token is: TokenExpired where a refresh helps, Reauthorize where nothing does.
    ended: type[PlatformError] = Reauthorize
    #: Options of the connection that a deletion needs.
    delete_options: Mapping[str, str] = field(default_factory=dict)
    #: True where the platform does not say that a post is gone, so that a second deletion fails.
    hides_gone: bool = False


def names() -> tuple[str, ...]:
    """Return the platforms that have a case, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def case_of(platform: str) -> Case:
    """Return the platform's case."""
    case = importlib.import_module(f"tests.contract.cases.{platform}").CASE
    assert isinstance(case, Case)
    return case
