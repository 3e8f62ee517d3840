"""Every connector found keeps every promise over real HTTP; a careless one breaks each of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

import connectors
from clickpost.contract import CAPABILITIES
from clickpost.errors import ClickPostError
from clickpost.settings import PROJECT
from tests.contract import careless, cases
from tests.contract.conftest import POLICIES
from tests.contract.promises import PROMISES, Stage

each_promise = pytest.mark.parametrize("promise", PROMISES)


@each_promise
@pytest.mark.parametrize("platform", connectors.names())
async def test_every_connector_keeps_its_promise(
    platform: str, promise: str, sandbox: str, http: httpx.AsyncClient, files: Path, tmp_path: Path
) -> None:
    case = cases.case_of(platform)
    stage = Stage(platform, POLICIES[platform], case, sandbox, http, files, tmp_path)
    await PROMISES[promise](stage)


@each_promise
async def test_a_careless_connector_breaks_the_promise(
    promise: str, sandbox: str, http: httpx.AsyncClient, files: Path, tmp_path: Path
) -> None:
    policy = careless.policy_of(POLICIES[careless.SPEAKS_TO])
    stage = Stage(
        careless.SPEAKS_TO,
        policy,
        careless.CASE,
        sandbox,
        http,
        files,
        tmp_path,
        make=careless.connector,
    )
    broken = (AssertionError, ClickPostError, httpx.HTTPStatusError, pytest.fail.Exception)
    with pytest.raises(broken) as caught:
        await PROMISES[promise](stage)
    assert careless.BREAKS[promise] in str(caught.value)


def test_the_careless_connector_knows_every_promise() -> None:
    assert set(careless.BREAKS) == set(PROMISES)


def missing_files(found: Mapping[str, set[str]]) -> list[str]:
    """Return the files that are missing, of the three that make a platform."""
    every = set().union(*found.values())
    return sorted(path.format(one) for path, has in found.items() for one in every - has)


def test_a_platform_is_three_files_of_one_name() -> None:
    policies = {path.stem for path in (PROJECT / "policies" / "platforms").glob("*.yaml")}
    found = {
        "connectors/{}.py": set(connectors.names()),
        "policies/platforms/{}.yaml": policies,
        "tests/contract/cases/{}.py": set(cases.names()),
    }
    assert missing_files(found) == []


def test_a_missing_file_is_named() -> None:
    found = {"connectors/{}.py": {"a", "b"}, "policies/{}.yaml": {"a"}, "cases/{}.py": {"c"}}
    assert missing_files(found) == [
        "cases/a.py",
        "cases/b.py",
        "connectors/c.py",
        "policies/b.yaml",
        "policies/c.yaml",
    ]


@pytest.mark.parametrize("platform", connectors.names())
def test_the_code_can_what_the_policy_says_and_no_more(platform: str) -> None:
    assert connectors.capabilities()[platform] == set(POLICIES[platform].capabilities)


def test_every_capability_says_what_it_means() -> None:
    assert all((protocol.__doc__ or "").strip() for protocol in CAPABILITIES.values())
