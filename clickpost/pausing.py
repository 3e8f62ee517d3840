"""What is said of a delivery whose platform an operator paused; nothing here decides who may."""

from __future__ import annotations

_PAUSED = " is paused by an operator"


def reason_of(platform: str) -> str:
    """Return why a delivery is held; by this a resume knows it again."""
    return platform + _PAUSED


def is_paused(reason: str | None) -> bool:
    """Say whether a held delivery waits for nothing but a resume of its platform."""
    return (reason or "").endswith(_PAUSED)


def resume_of(platform: str) -> str:
    """Return the command that lets its deliveries go on."""
    return f"clickpost platforms resume {platform}"
