"""The command `clickpost`: puts the subjects together."""

from __future__ import annotations

import typer

from cli import (
    approving,
    audit,
    backups,
    bench,
    connections,
    doctor,
    hooks,
    notify,
    people,
    platforms,
    policy,
    posts,
    privacy,
    sandbox,
    series,
    stack,
    workspaces,
)

app = typer.Typer(
    name="clickpost",
    help="Put a post on every connected platform: once, on time, or with a reason.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

stack.add_to(app)
backups.add_to(app)
doctor.add_to(app)
connections.add_to(app)
posts.add_to(app)
approving.add_to(app)
app.add_typer(series.app, name="series")
app.add_typer(platforms.app, name="platforms")
app.add_typer(policy.app, name="policy")
app.add_typer(notify.app, name="notify")
app.add_typer(people.app, name="people")
app.add_typer(hooks.app, name="hooks")
app.add_typer(audit.app, name="audit")
app.add_typer(privacy.app, name="privacy")
workspaces.app.command("approval")(approving.for_all)
app.add_typer(workspaces.app, name="workspaces")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(bench.app, name="bench")


def run() -> None:
    """Run the command line."""
    app()
