"""What an author wrote: the post file's shape, and what each target gets of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from clickpost.policy.shape import Closed
from clickpost.recurrence import Repeat

Fit = Literal["refuse", "shorten", "thread"]
MediaFit = Literal["choose", "refuse"]
Late = Literal["publish", "skip", "ask"]
Visibility = Literal["public", "unlisted", "private", "direct"]


class MediaItem(Closed):
    """One file of the post."""

    file: str = Field(description="Path of the file, relative to the post file.")
    alt: str = Field("", description="What it shows, for those who do not see it.")


class Wording(Closed):
    """What a variant may say otherwise for one platform or one account."""

    text: str | None = Field(None, description="The text.")
    title: str | None = Field(None, description="The title, where the platform has one.")
    media: list[str] | None = Field(
        None, description="Which of the post's files go there, by their `file`; [] for none."
    )
    alts: dict[str, str] = Field(
        default_factory=dict, description="Other descriptions, by the files' `file`."
    )
    tags: list[str] | None = Field(None, description="Hashtags or tags, without `#`.")
    fit: Fit | None = Field(None, description="What happens to a text that is too long.")
    media_fit: MediaFit | None = Field(None, description="What happens to media it cannot take.")
    visibility: Visibility | None = Field(None, description="Who may see it.")
    language: str | None = Field(None, description="BCP 47 language of the text.")
    sensitive: bool | None = Field(None, description="True hides the media behind a click.")
    spoiler: str | None = Field(None, description="Content warning, where the platform has one.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="What only this platform knows (e.g. categoryId)."
    )


class PostFile(Closed):
    """One post, as a YAML or JSON file says it."""

    kind: Literal["post"] = Field("post", description="What this file is.")
    text: str = Field("", description="The text that every target gets unless a variant differs.")
    title: str = Field("", description="The title, for platforms that have one.")
    media: list[MediaItem] = Field(default_factory=list, description="Files, in their order.")
    to: list[str] = Field(default_factory=list, description="Targets: PLATFORM/NAME.")
    at: datetime | Literal["next-slot"] | None = Field(
        None,
        description="When it is due, with its offset or `zone`; `next-slot`: at each account's next"
        " free slot.",
    )
    zone: str | None = Field(None, description="IANA zone of `at` where that has no offset.")
    late: Late = Field("publish", description="What happens when it became late.")
    repeat: Repeat | None = Field(
        None, description="When it comes again: each time is a post of its own."
    )
    tags: list[str] = Field(default_factory=list, description="Hashtags or tags, without `#`.")
    fit: Fit = Field("refuse", description="What happens to a text that is too long.")
    media_fit: MediaFit = Field(
        "choose",
        description="`choose`: a target gets the media that it can take, and the report says what "
        "was left out; `refuse`: the target is refused.",
    )
    visibility: Visibility = Field("public", description="Who may see it.")
    language: str | None = Field(None, description="BCP 47 language of the text.")
    sensitive: bool = Field(False, description="True hides the media behind a click.")
    spoiler: str = Field("", description="Content warning, where the platform has one.")
    options: dict[str, Any] = Field(default_factory=dict, description="Platforms' own options.")
    key: str | None = Field(None, description="The client's key: the same key is the same post.")
    variants: dict[str, Wording] = Field(
        default_factory=dict, description="By PLATFORM or PLATFORM/NAME: what differs there."
    )


class Enclosed(BaseModel):
    """One file of a draft, after it came into the house."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asset_id: str
    kind: Literal["image", "video"]
    file: str
    alt: str = ""


class Wish(BaseModel):
    """What one target shall get, variants applied, nothing yet decided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = ""
    title: str = ""
    media: tuple[Enclosed, ...] = ()
    tags: tuple[str, ...] = ()
    fit: Fit = "refuse"
    media_fit: MediaFit = "choose"
    visibility: Visibility = "public"
    language: str | None = None
    sensitive: bool = False
    spoiler: str = ""
    options: dict[str, Any] = Field(default_factory=dict)


def wish_of(post: PostFile, media: tuple[Enclosed, ...], platform: str, ref: str) -> Wish:
    """Return what `ref` (PLATFORM/NAME) shall get of `post`: the account's variant wins."""
    base = Wish(
        text=post.text,
        title=post.title,
        media=media,
        tags=tuple(post.tags),
        fit=post.fit,
        media_fit=post.media_fit,
        visibility=post.visibility,
        language=post.language,
        sensitive=post.sensitive,
        spoiler=post.spoiler,
        options=dict(post.options),
    )
    for name in (platform, ref):
        if variant := post.variants.get(name):
            base = _varied(base, variant, media)
    return base


_SIMPLE = ("text", "title", "fit", "media_fit", "visibility", "language", "sensitive", "spoiler")


def _varied(wish: Wish, variant: Wording, media: tuple[Enclosed, ...]) -> Wish:
    said = {name: getattr(variant, name) for name in _SIMPLE if getattr(variant, name) is not None}
    if variant.tags is not None:
        said["tags"] = tuple(variant.tags)
    if variant.media is not None:
        # What an earlier variant said of a file stays, where that variant had the file.
        by_file = {item.file: item for item in (*media, *wish.media)}
        said["media"] = tuple(by_file[file] for file in variant.media)
    chosen = said.get("media", wish.media)
    said["media"] = tuple(
        item.model_copy(update={"alt": variant.alts.get(item.file, item.alt)}) for item in chosen
    )
    said["options"] = {**wish.options, **variant.options}
    return wish.model_copy(update=said)


def strangers(post: PostFile) -> list[str]:
    """Name the files that a variant speaks of and the post does not have."""
    known = {item.file for item in post.media}
    return [
        f"variants.{name}.{place}: {file}"
        for name, variant in post.variants.items()
        for place, files in (("media", variant.media or []), ("alts", list(variant.alts)))
        for file in files
        if file not in known
    ]
