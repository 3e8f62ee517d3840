"""Finds the stand-ins: a module of this package that says `STAND_IN` is one, and says all of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

import sandbox

if TYPE_CHECKING:
    from sandbox.misbehaviour import Orders
    from sandbox.state import State


def _no_options(base: str) -> dict[str, str]:
    return {}


def _no_notes(post: dict[str, Any]) -> list[str]:
    return []


def _same(name: str) -> str:
    return name


@dataclass(frozen=True)
class StandIn:
    """All that the sandbox has to know of one platform."""

    title: str
    hues: tuple[str, str]
    """Its colour on light and on dark paper."""
    seed: Mapping[str, str]
    """The credentials of the account that is always there, so that a demo needs no set-up."""
    credentials: Callable[[str], dict[str, str]]
    """Makes those of another account, by its name."""
    remote_id: Callable[[int, Mapping[str, str]], str]
    """Makes the id of an account, by its number and its credentials."""
    mounts: Callable[[State, Orders, str], Mapping[str, list[Route]]]
    """Makes the routes by the path under which they stand, for a sandbox at this address."""
    step_of: Callable[[str, str], str]
    """Names a call, by method and path, for the control endpoint."""
    limited: Callable[[], Response]
    """Answers that we are too fast, as the platform says it."""
    broken: Callable[[], Response]
    """Answers a fault of the platform's own, in its shape."""
    body: Callable[[dict[str, Any]], str]
    """Renders a post's text as HTML, as the platform does."""
    handle_of: Callable[[str], str] = _same
    options: Callable[[str], Mapping[str, str]] = _no_options
    """What a client has to be told to speak to a sandbox at this address."""
    notes: Callable[[dict[str, Any]], list[str]] = _no_notes
    """What the platform writes beside a post, beyond what is usual."""
    media_first: bool = False
    """True where pictures lead and words follow."""


@cache
def found() -> Mapping[str, StandIn]:
    """Return the stand-ins by the names of their modules, sorted."""
    names = sorted(one.name for one in pkgutil.iter_modules(sandbox.__path__))
    modules = {
        name: importlib.import_module(f"sandbox.{name}")
        for name in names
        if not name.startswith("_")
    }
    made = {name: getattr(module, "STAND_IN", None) for name, module in modules.items()}
    return {name: one for name, one in made.items() if isinstance(one, StandIn)}
