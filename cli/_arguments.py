"""Arguments that several commands take, explained once."""

from __future__ import annotations

import typer

POST = typer.Argument(metavar="POST", help="The post's id, post_…, as `posts list` shows it.")
ACCOUNT = typer.Argument(
    metavar="PLATFORM/NAME", help="The account, as `clickpost connections` shows it."
)
PLATFORM = typer.Argument(metavar="PLATFORM", help="A platform, as `platforms list` shows it.")
CHANNEL = typer.Argument(metavar="NAME", help="The channel's name, as `notify list` shows it.")
HOOK = typer.Argument(metavar="NAME", help="The hook's name, as `hooks list` shows it.")
