"""What is wrong with a policy file is said at once: where, what, what was meant, and why."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from clickpost.contract import CAPABILITIES
from clickpost.errors import PolicyError
from clickpost.policy.load import BrokenPolicies, check, load_platforms
from clickpost.policy.source import DEEPEST, MOST_BYTES
from tests.policies.conftest import SOUND, TODAY, Faults, changed

FILE = "policies/platforms/parrot.yaml"


def test_a_sound_policy_has_no_faults(faults: Faults) -> None:
    assert faults(SOUND) == []


OAUTH = (
    "oauth: {authorize: https://parrot.example/ask, token: /token, scopes: [write, wrote],"
    " pkce: true, source: https://parrot.example/oauth, checked: 2026-09-01}"
)
#: What was changed, into what, and all that is said about it.
SHAPES = [
    pytest.param(
        ("  limit: 280", "  limt: 280"),
        f"{FILE}:9:3: text.limt: unknown key; did you mean 'limit'?"
        " (Most units of `count`; null for no limit)",
        id="unknown key",
    ),
    pytest.param(
        ("{why: from", "{wy: x, why: from"),
        f"{FILE}:6:23: credentials.token.wy: unknown key; did you mean 'why'?"
        " (What it is, and where its owner finds it)",
        id="unknown key below a name of one's own",
    ),
    pytest.param(
        ("  supported: true", "  supported: true\n  zzz: 1"),
        f"{FILE}:30:3: thread.zzz: unknown key"
        " (known here: source, checked, confirmed, note, supported)",
        id="unknown key like no other",
    ),
    pytest.param(
        ("title: Parrot\n", "title: Parrot\ntitle: Polly\n"),
        f"{FILE}:4:1: title: a key given twice (first in line 3)",
        id="repeated key",
    ),
    pytest.param(
        ("{min: 1 s, max", "{min: 1 s, min: 1 s, max"),
        f"{FILE}:24:21: video.lasts.min: a key given twice (first in line 24)",
        id="repeated key inside",
    ),
    pytest.param(
        ("title: Parrot\n", ""),
        f"{FILE}:1:1: title: is missing (The platform's name for people)",
        id="missing key",
    ),
    pytest.param(
        ("total: 300, ", ""),
        f"{FILE}:33:5: budget.0.total: is missing (How many)",
        id="missing key in a list",
    ),
    pytest.param(
        ("5 MB", "5000000"),
        f"{FILE}:15:3: images.bytes: needs a number with a unit"
        " (B, kB, MB, GB, KiB, MiB, GiB), e.g. 5 kB; found 5000000 (Largest file)",
        id="missing unit",
    ),
    pytest.param(
        ("max: 2 min", "max: 2 minutes"),
        f"{FILE}:24:21: video.lasts.max: unknown unit 'minutes' (did you mean 'min'?);"
        " found '2 minutes' (Longest, e.g. 15 min)",
        id="unknown unit",
    ),
    pytest.param(
        ("  limit: 280", "  limit: lots"),
        f"{FILE}:9:3: text.limit: must be a whole number, without quotes; found 'lots'"
        " (Most units of `count`; null for no limit)",
        id="wrong type",
    ),
    pytest.param(
        ("  limit: 280", '  limit: "280"'),
        f"{FILE}:9:3: text.limit: must be a whole number, without quotes; found '280'"
        " (Most units of `count`; null for no limit)",
        id="a number in quotes",
    ),
    pytest.param(
        ("  limit: 280", "  limit: -1"),
        f"{FILE}:9:3: text.limit: must be greater than or equal to 0; found -1"
        " (Most units of `count`; null for no limit)",
        id="less than nothing",
    ),
    pytest.param(
        ("  supported: true", "  supported: NO"),
        f"{FILE}:29:3: thread.supported: must be true or false; found 'NO'"
        " (True where a long text may become a thread)",
        id="YAML 1.1's NO",
    ),
    pytest.param(
        ("  supported: true", "  supported: on"),
        f"{FILE}:29:3: thread.supported: must be true or false; found 'on'"
        " (True where a long text may become a thread)",
        id="YAML 1.1's on",
    ),
    pytest.param(
        ("version: v1", "version: 1.10"),
        f"{FILE}:4:7: api.version: must be a text (put quotes around a number or true/false);"
        " found 1.1 (Version in use, as the platform names it)",
        id="a version that loses its zero",
    ),
    pytest.param(
        ("  checked: 2026-09-01\nmedia", "  checked: 20260901\nmedia"),
        f"{FILE}:11:3: text.checked: needs a day of the calendar as YYYY-MM-DD; found 20260901"
        " (The day somebody looked at the source)",
        id="a day as a number",
    ),
    pytest.param(
        ("  checked: 2026-09-01\nmedia", "  checked: 2026-02-30\nmedia"),
        f"{FILE}:11:3: text.checked: needs a day of the calendar as YYYY-MM-DD; found '2026-02-30'"
        " (The day somebody looked at the source)",
        id="a day that never was",
    ),
    pytest.param(
        ("  checked: 2026-09-01\nmedia", "  checked: 2026-12-24\nmedia"),
        f"{FILE}:11:3: text.checked: 2026-12-24 is in the future",
        id="a look in the future",
    ),
    pytest.param(
        ("https://parrot.example/limits\n", "parrot.example/limits\n"),
        f"{FILE}:10:3: text.source: must be an address that starts with https://;"
        " found 'parrot.example/limits' (The page that states these facts)",
        id="a source that is no address",
    ),
    pytest.param(
        ("formats: [jpeg, png]", "formats: [jpeg, pgn]"),
        f"{FILE}:16:19: images.formats.1: must be one of"
        " 'jpeg', 'png', 'webp', 'gif', 'heic' or 'avif'; found 'pgn'; did you mean 'png'?"
        " (Formats accepted, the best one first)",
        id="unknown word in a list",
    ),
    pytest.param(
        ("[whoami, publish]", "[whoami, publsh]"),
        f"{FILE}:5:24: capabilities.1: unknown capability 'publsh'; did you mean 'publish'?"
        " (Makes the post visible: the one step that must not run twice)",
        id="unknown capability",
    ),
    pytest.param(
        ("[whoami, publish]", "[whoami, publish, edit]"),
        f"{FILE}:5:33: capabilities.2: unknown capability 'edit'"
        f" (known: {', '.join(CAPABILITIES)})",
        id="unknown capability like no other",
    ),
    pytest.param(
        ("[whoami, publish]", "[whoami, publish, publish]"),
        f"{FILE}:5:33: capabilities.2: 'publish' is there already",
        id="repeated capability",
    ),
    pytest.param(
        ("name: parrot", "name: polly"),
        f"{FILE}:2:1: name: must be the file's name, 'parrot'; found 'polly'",
        id="another name than the file's",
    ),
    pytest.param(
        ("kind: platform", "kind: platfrom"),
        f"{FILE}:1:1: kind: unknown kind 'platfrom' (known: platform); did you mean 'platform'?",
        id="unknown kind",
    ),
    pytest.param(
        ("kind: platform\n", ""),
        f"{FILE}:1:1: kind: is missing; write `kind: platform` (What this file is)",
        id="no kind",
    ),
    pytest.param(
        ("{min: 1 s, max: 2 min}", "{min: 3 min, max: 2 min}"),
        f"{FILE}:24:3: video.lasts: min 0:03:00 is above max 0:02:00",
        id="a range upside down",
    ),
    pytest.param(
        ("{status: 401, means", "{means"),
        f"{FILE}:42:7: errors.rules.0: matches every answer;"
        " give a status, code, subcode, contains or step",
        id="an error rule that takes all",
    ),
    pytest.param(
        ("window: 3 h", "window: 0 h"),
        f"{FILE}:33:45: budget.0.window: must be more than 0; found '0 h' (In how long, e.g. 3 h)",
        id="a window of no time",
    ),
    pytest.param(
        ("window: 3 h", "window: 3 h, resets: Europe/Berlin"),
        f"{FILE}:33:58: budget.0.resets: is for a window of 24 h only; found 'Europe/Berlin'"
        " (IANA zone at whose midnight a window of 24 h begins; null: it slides)",
        id="a midnight for a window of hours",
    ),
    pytest.param(
        ("window: 3 h", "window: 24 h, resets: Berlin"),
        f"{FILE}:33:59: budget.0.resets: needs an IANA time zone, e.g. America/Los_Angeles;"
        " found 'Berlin' (IANA zone at whose midnight a window of 24 h begins; null: it slides)",
        id="a zone that is none",
    ),
    pytest.param(
        ("{why: from the settings}", "{why: from the settings, instead_of: [tokn]}"),
        f"{FILE}:6:60: credentials.token.instead_of.0: no other credential is called 'tokn'",
        id="a credential instead of one that is not there",
    ),
    pytest.param(
        ("scopes: {write: to publish}", f"scopes: {{write: to publish}}\n{OAUTH}"),
        f"{FILE}:8:79: oauth.scopes.1: 'wrote' has no purpose: it is not among `scopes`;"
        " did you mean 'write'?",
        id="a permission without a purpose",
    ),
    pytest.param(
        (
            "scopes: {write: to publish}",
            f"scopes: {{write: to publish}}\n{OAUTH}".replace("https://parrot.example/ask", "ask"),
        ),
        f"{FILE}:8:9: oauth.authorize: needs an https address, or a path where every server"
        " is its own; found 'ask' (The platform's page that asks the owner)",
        id="an address of consent that is none",
    ),
    pytest.param(
        ("means: rate_limited,", "means: rate_limited, per: app,"),
        f"{FILE}:43:42: errors.rules.1.per: needs a budget with `per: app`",
        id="a stop of whom no budget counts",
    ),
]


@pytest.mark.parametrize(("change", "said"), SHAPES)
def test_a_fault_is_told_with_its_place_its_meaning_and_the_nearest_spelling(
    faults: Faults, change: tuple[str, str], said: str
) -> None:
    assert [str(one) for one in faults(changed(*change))] == [said]


#: Files that are no policy at all, and what is said of them.
TEXTS = [
    pytest.param("", "1:1: must be a mapping of keys to values, found nothing", id="empty"),
    pytest.param("# so far\n", "1:1: must be a mapping of keys to values, found nothing", id="#"),
    pytest.param("- a\n", "1:1: must be a mapping of keys to values, found a list", id="list"),
    pytest.param("squawk\n", "1:1: must be a mapping of keys to values, found a value", id="word"),
    pytest.param("a:\n\tb: 1\n", "2:1: a tab; YAML is indented with spaces", id="tab"),
    pytest.param(
        "a: 1\n  b: 2\n",
        "2:4: a colon in the wrong place: look at the indentation,"
        " or put quotes around a value that holds `: `",
        id="indentation",
    ),
    pytest.param(
        "a:\n    b: 1\n  c: 1\n",
        "3:3: does not fit in here: look at the indentation of this line",
        id="dedentation",
    ),
    pytest.param('a: "1\n', "2:1: a quote that is opened and never closed", id="a quote left open"),
    pytest.param(
        "a: [1, 2\nb: 3\n",
        "2:2: a bracket or brace that is opened and never closed, or a missing comma",
        id="a bracket left open",
    ),
    pytest.param(
        "a: @b\n",
        "1:4: a value that starts with a special sign; put it in quotes",
        id="a special sign",
    ),
    pytest.param("a: 1\nb\n", "3:1: a key without a colon", id="no colon"),
    pytest.param("[a]: 1\n", "1:1: a key must be a word", id="a list as a key"),
    pytest.param("a: 1\n---\nb: 1\n", "2:1: a second document; one file holds one", id="two"),
    pytest.param(
        "a: !!python/object:os.system x\n",
        "1:4: tags have no place here, found tag:yaml.org,2002:python/object:os.system",
        id="a tag",
    ),
    pytest.param(
        "a: &a\n  b: *a\n",
        "1:4: anchors and aliases have no place here; write the value again",
        id="an anchor",
    ),
    pytest.param(
        "a: *a\n",
        "1:4: anchors and aliases have no place here; write the value again",
        id="an alias",
    ),
    pytest.param(
        f"a: {'[' * 5000}{']' * 5000}\n",
        f"1:{4 + DEEPEST}: is nested deeper than {DEEPEST} levels",
        id="too deep",
    ),
    pytest.param(
        b"a: 1\nb: \xff\n", "2:4: is not UTF-8 text from here on; save it as UTF-8", id="8"
    ),
    pytest.param(
        "a: 1\n".encode("utf-16"), "1:1: is not UTF-8 text from here on; save it as UTF-8", id="16"
    ),
    pytest.param(b"a: 1\nb: x\x00\n", "2:5: the character U+0000 is not text", id="NUL"),
    pytest.param("#" * (MOST_BYTES + 1), f"1:1: is larger than {MOST_BYTES} bytes", id="huge"),
]


@pytest.mark.parametrize(("content", "said"), TEXTS)
def test_a_file_that_is_no_policy_is_told_with_its_place(
    faults: Faults, content: str | bytes, said: str
) -> None:
    assert [str(one) for one in faults(content)] == [f"{FILE}:{said}"]


def test_an_alias_bomb_is_refused_before_it_grows(faults: Faults) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    began = time.monotonic()
    assert "anchors and aliases" in faults("\n".join(lines))[0].message
    assert time.monotonic() - began < 1


def test_a_byte_order_mark_and_dos_lines_are_fine(faults: Faults) -> None:
    assert faults(b"\xef\xbb\xbf" + SOUND.replace("\n", "\r\n").encode()) == []


def test_a_country_is_no_boolean(faults: Faults) -> None:
    assert faults(changed("{write: to publish}", "{NO: Norway, on: to publish}")) == []


def test_all_faults_are_told_at_once_in_the_order_of_the_files(
    faults: Faults, folder: Path
) -> None:
    (folder / "platforms" / "finch.yaml").write_text("a: [\n")
    text = changed("  limit: 280", "  limit: x\n  limit: y\n  limti: 1").replace("5 MB", "5")
    text = text.replace("title: Parrot\n", "").replace("[whoami, publish]", "[publsh]")
    told = [(one.file.rpartition("/")[2], one.line, one.key) for one in faults(text)]
    assert told == [
        ("finch.yaml", 2, ""),
        ("parrot.yaml", 1, "title"),
        ("parrot.yaml", 4, "capabilities.0"),
        ("parrot.yaml", 8, "text.limit"),
        ("parrot.yaml", 9, "text.limit"),
        ("parrot.yaml", 10, "text.limti"),
        ("parrot.yaml", 16, "images.bytes"),
    ]


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    for name in ("parrot.yaml", "parrot.yml", "Parrot.YAML"):
        (folder / "platforms" / name).write_text(SOUND)
    said = [str(one) for one in check(folder, TODAY).problems if "second" in one.message]
    beside = "beside policies/platforms/Parrot.YAML; keep one"
    assert said == [
        f"{FILE}:1:1: is a second policy of 'parrot', {beside}",
        f"policies/platforms/parrot.yml:1:1: is a second policy of 'parrot', {beside}",
    ]
    with pytest.raises(BrokenPolicies, match="is a second policy"):
        load_platforms(folder)


def test_a_file_that_cannot_be_read_is_told(folder: Path) -> None:
    (folder / "platforms" / "parrot.yaml").symlink_to(folder / "nowhere")
    said = f"{FILE}:1:1: cannot be read: No such file or directory"
    assert [str(one) for one in check(folder, TODAY).problems] == [said]
    with pytest.raises(BrokenPolicies, match="cannot be read: No such file"):
        load_platforms(folder)


def test_a_file_without_permission_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    (folder / "platforms" / "parrot.yaml").write_text(SOUND)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    said = f"{FILE}:1:1: cannot be read: Permission denied"
    assert [str(one) for one in check(folder, TODAY).problems] == [said]


def test_a_folder_that_is_not_there_or_empty_is_told(folder: Path) -> None:
    nowhere = check(folder / "nowhere", TODAY).problems
    assert [str(one) for one in nowhere] == [
        "policies/nowhere:1:1: there is no such file or folder"
    ]
    empty = check(folder, TODAY).problems
    assert [str(one) for one in empty] == ["policies:1:1: holds no policy files (*.yaml)"]
    for place in (folder, folder / "nowhere"):
        with pytest.raises(PolicyError, match=r"platforms:1:1: "):
            load_platforms(place)


def test_what_editors_and_mounts_hide_is_no_policy(folder: Path) -> None:
    version = folder / "platforms" / "..2026_11_24"  # As Kubernetes mounts a ConfigMap.
    version.mkdir()
    (version / "parrot.yaml").write_text(SOUND)
    (folder / "platforms" / "parrot.yaml").symlink_to(version / "parrot.yaml")
    (folder / "platforms" / ".#parrot.yaml").write_text("half written")
    report = check(folder, TODAY)
    assert (report.files, report.problems) == ([FILE], [])


def test_one_file_can_be_checked_alone(folder: Path) -> None:
    path = folder / "platforms" / "parrot.yaml"
    path.write_text(SOUND)
    (folder / "platforms" / "finch.yaml").write_text("")
    assert check(path, TODAY).problems == []


CODE = {"parrot": {"whoami", "publish"}}


def test_policies_and_connectors_must_agree(folder: Path) -> None:
    path = folder / "platforms" / "parrot.yaml"
    path.write_text(SOUND)
    assert check(folder, TODAY, CODE).problems == []
    code = {"parrot": {"whoami", "delete"}, "finch": {"publish"}}
    assert [str(one) for one in check(folder, TODAY, code).problems] == [
        "policies:1:1: connectors/finch.py has no policy; write finch.yaml",
        f"{FILE}:5:1: capabilities: 'delete' is missing, which the connector can do",
        f"{FILE}:5:24: capabilities.1: the connector cannot 'publish':"
        " connectors/parrot.py lacks it",
    ]


def test_a_policy_without_a_connector_is_told(folder: Path) -> None:
    (folder / "platforms" / "parrot.yaml").write_text(SOUND)
    said = check(folder / "platforms" / "parrot.yaml", TODAY, {"parrots": {"publish"}}).problems
    assert [str(one) for one in said] == [
        f"{FILE}:2:1: name: there is no connector 'parrot' (known: parrots);"
        " did you mean 'parrots'?"
    ]


def test_what_will_be_wrong_is_a_warning(folder: Path) -> None:
    text = changed("{version: v1, ", "{version: v1, sunset: 2026-12-24, ").replace(
        "  checked: 2026-09-01\nmedia", "  checked: 2025-09-01\nmedia"
    )
    text = text.replace("status: 429, means", "status: 401, code: x, means")
    (folder / "platforms" / "parrot.yaml").write_text(text)
    report = check(folder, TODAY)
    assert report.problems == []
    assert [str(one) for one in report.warnings] == [
        f"{FILE}:4:20: api.sunset: v1 stops on 2026-12-24",
        f"{FILE}:11:3: text.checked: nobody looked since 2025-09-01; look again",
        f"{FILE}:43:7: errors.rules.1: never matches: rule 0 takes all of its answers first",
    ]


def test_a_changed_file_is_read_again(folder: Path) -> None:
    path = folder / "platforms" / "parrot.yaml"
    path.write_text(SOUND)
    assert load_platforms(folder)["parrot"].text.limit == 280
    path.write_text(changed("  limit: 280", "  limit: 2800"))
    assert load_platforms(folder)["parrot"].text.limit == 2800
