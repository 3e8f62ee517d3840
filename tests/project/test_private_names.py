"""A name with an underscore stays in its module: what two modules share has a public name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from clickpost.settings import PROJECT

FOLDERS = ("clickpost", "connectors", "tasks", "flows", "deployments", "cli", "sandbox")


def borrowed(source: str, root: Path) -> Iterator[str]:
    """Yield the private names, but not the private modules, that `source` imports."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        folder = root.joinpath(*node.module.split("."))
        for name in (one.name for one in node.names):
            if name.startswith("_") and not (folder / f"{name}.py").is_file():
                yield f"{node.module}.{name}"


def test_no_module_takes_a_private_name_of_another() -> None:
    files = [path for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py")]
    taken = {str(path): list(borrowed(path.read_text(), PROJECT)) for path in files}
    assert {path: names for path, names in taken.items() if names} == {}


def test_a_private_name_is_found_and_a_private_module_is_none() -> None:
    source = "from tasks import _wiring\nfrom tasks.sending import _part, send\n"
    assert list(borrowed(source, PROJECT)) == ["tasks.sending._part"]
