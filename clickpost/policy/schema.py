"""Writes the JSON schemas that let an editor explain and check policy files."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from clickpost.draft import PostFile
from clickpost.policy.erasing import Erasure
from clickpost.policy.history import History
from clickpost.policy.privacy import DataMap, Retention
from clickpost.policy.processors import Processor
from clickpost.policy.requesting import Jurisdiction
from clickpost.policy.roles import Roles
from clickpost.policy.running import Running
from clickpost.policy.shape import PlatformPolicy
from clickpost.policy.triggers import Trigger

SHAPES: dict[str, type[BaseModel]] = {
    "platform": PlatformPolicy,
    "post": PostFile,
    "data_map": DataMap,
    "retention": Retention,
    "requests": Jurisdiction,
    "erasure": Erasure,
    "trigger": Trigger,
    "running": Running,
    "history": History,
    "roles": Roles,
    "processor": Processor,
}


def schema_of(name: str) -> str:
    """Return the JSON schema of one kind of file, as text."""
    schema = SHAPES[name].model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> list[Path]:
    """Write every schema into `folder`, where it differs, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in SHAPES:
        path = folder / f"{name}.schema.json"
        text = schema_of(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
