"""A folder into which people and programs put files: what is there, and where it goes then."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path, PurePath

from clickpost.arrivals import File, is_meant
from clickpost.draft import PostFile
from clickpost.errors import InvalidInput, Unavailable
from clickpost.policy.load import validated
from clickpost.policy.source import Problem, read_file

TAKEN, REFUSED = "taken", "refused"


def files(folder: Path) -> dict[str, File]:
    """Return the files of a folder that are meant, by name; links are none.

    Raises Unavailable where the folder is not there, or may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = [one for one in entries if is_meant(one.name) and _is_plain(one)]
            return {one.name: _file(one) for one in found}
    except FileNotFoundError:
        raise Unavailable("the trigger's folder is not there, or a file of it just went") from None
    except OSError as error:
        raise Unavailable(f"the trigger's folder cannot be read ({error.strerror})") from None


def _is_plain(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) and entry.name.isprintable()


def _file(entry: os.DirEntry[str]) -> File:
    known = entry.stat(follow_symlinks=False)
    # A program may give a file the date of another one; the change of its record it cannot forge.
    written = max(known.st_mtime, known.st_ctime)
    moment = datetime.fromtimestamp(written, UTC)
    return File(entry.name, known.st_size, known.st_ino, moment, known.st_mtime_ns)


def post_in(path: Path) -> PostFile:
    """Return the post of a post file; raise InvalidInput with all that is wrong."""
    source = read_file(path, path.name)
    if isinstance(source, Problem):
        raise InvalidInput(str(source))
    post = validated(source, PostFile)
    if isinstance(post, list):
        raise InvalidInput("\n".join(str(problem) for problem in post))
    if post.repeat is not None:
        raise InvalidInput(f"{path.name}: repeat: a folder takes single posts")
    return post


def media_of(post: PostFile) -> list[str]:
    """Return the files that a post names; raise InvalidInput for one of another folder."""
    names = [item.file for item in post.media]
    for name in names:
        if PurePath(name).name != name or not is_meant(name):
            raise InvalidInput(f"media {name}: has to be in the same folder, and named plainly")
    return names


def put_away(folder: Path, names: Iterable[str], into: str, arrival_id: str, why: str = "") -> None:
    """Move files into a folder inside, each under a name that is free there; say why beside them.

    What is not there any more was moved before. Raises Unavailable where it may not be moved.
    """
    aside = folder / into
    try:
        aside.mkdir(exist_ok=True)
        for name in names:
            target = aside / name
            if target.exists():
                target = aside / f"{Path(name).stem}.{arrival_id}{Path(name).suffix}"
            if (folder / name).exists():
                (folder / name).rename(target)
                if why:
                    target.with_name(f"{target.name}.why.txt").write_text(f"{why}\n", "utf-8")
    except OSError as error:
        raise Unavailable(
            f"what was taken cannot be moved ({error.strerror}); let us write to the trigger's"
            " folder, or say `then: keep`"
        ) from None
