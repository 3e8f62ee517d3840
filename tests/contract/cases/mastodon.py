"""Mastodon: tokens that do not end."""

from __future__ import annotations

from tests.contract.cases import Case

CASE = Case(publish_step="status")
