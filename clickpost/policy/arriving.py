"""The shape of triggers that look for what arrives: entries of a feed, files, mails."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from clickpost.draft import Fit, Late, MediaFit, Visibility, Wording
from clickpost.policy.shape import Facts, LastingSpan, Url, Words
from clickpost.policy.units import Bytes, no_shorter

#: Whoever serves a feed has other readers too.
SHORTEST_FEED = timedelta(minutes=1)
SHORTEST_LOOK = timedelta(seconds=10)
TLS_PORT = 993

First = Literal["none", "all"]


class ByFeed(Facts):
    """When a feed has a new entry (RSS or Atom)."""

    feed: Url = Field(description="The feed's address.")
    every: Annotated[LastingSpan, no_shorter(SHORTEST_FEED)] = Field(
        description="How often we look, e.g. 15 min."
    )
    first: First = Field("none", description="What the first look takes of what is there already.")


class ByFolder(Facts):
    """When a folder has a new file that is complete."""

    folder: str = Field(pattern="^/", description="The folder, from the root: /srv/outbox.")
    every: Annotated[LastingSpan, no_shorter(SHORTEST_LOOK)] = Field(
        description="How often we look, e.g. 15 min."
    )
    of: Literal["media", "posts"] = Field(
        "media",
        description="`media`: each picture and video, with the post file that has its name, where"
        " there is one; `posts`: each post file, with the media that it names.",
    )
    settled: LastingSpan = Field(
        timedelta(seconds=10), description="So long nobody has written to a file that is complete."
    )
    largest: Bytes = Field(10**9, description="A larger one is not taken.")
    then: Literal["move", "keep"] = Field(
        "move",
        description="`move`: what was taken goes into the folder's `taken` (or `refused`);"
        " `keep`: it stays, for a folder that we may not write to.",
    )


class ByMailbox(Facts):
    """When a mailbox has a new mail that a person wrote."""

    mailbox: str = Field(
        pattern=r"^[A-Za-z0-9.:\[\]-]+$", description="The IMAP server, e.g. imap.example.org."
    )
    login: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,40}$",
        description="The name of its credentials: `desk` means CLICKPOST_MAILBOX_DESK_USER and"
        " CLICKPOST_MAILBOX_DESK_PASSWORD, or the files that these with _FILE name.",
    )
    every: Annotated[LastingSpan, no_shorter(SHORTEST_LOOK)] = Field(
        description="How often we look, e.g. 15 min."
    )
    inbox: Words = Field("INBOX", description="The folder of the mailbox.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(TLS_PORT, description="The server's port.")
    security: Literal["tls", "starttls", "none"] = Field(
        "tls", description="How the way there is kept private; `none` on this machine only."
    )
    largest: Bytes = Field(25 * 10**6, description="A larger one is not taken.")
    first: First = Field("none", description="What the first look takes of what is there already.")

    @model_validator(mode="after")
    def _speaks_there(self) -> ByMailbox:
        if self.security == "starttls" and self.port == TLS_PORT:
            raise ValueError(f"port {TLS_PORT} speaks TLS from the first; say `port: 143`")
        return self


ByArrival = ByFeed | ByFolder | ByMailbox


class Template(Facts):
    """The post that is made of each entry or file; {title} and the like stand for its words."""

    to: Annotated[list[Words], Field(min_length=1)] = Field(description="Targets: PLATFORM/NAME.")
    text: str = Field("", description="The text; of entries {title}, {link}, {summary}, {author}.")
    title: str = Field("", description="The title, for platforms that have one.")
    alt: str = Field("", description="What the file shows, for those who do not see it.")
    draft: bool = Field(False, description="True: it stays a draft until somebody publishes it.")
    at: Literal["next-slot"] | None = Field(
        None, description="`next-slot`: at each account's next free slot; else at once."
    )
    late: Late = Field("publish", description="What happens when it became late.")
    tags: list[Words] = Field(default_factory=list, description="Hashtags or tags, without `#`.")
    fit: Fit = Field("shorten", description="What happens to a text that is too long.")
    media_fit: MediaFit = Field("choose", description="What happens to media it cannot take.")
    visibility: Visibility = Field("public", description="Who may see it.")
    language: str | None = Field(None, description="BCP 47 language of the text.")
    sensitive: bool = Field(False, description="True hides the media behind a click.")
    options: dict[str, Any] = Field(default_factory=dict, description="Platforms' own options.")
    variants: dict[str, Wording] = Field(
        default_factory=dict, description="By PLATFORM or PLATFORM/NAME: what differs there."
    )
