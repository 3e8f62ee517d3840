"""The closed shape of platform policies: every key has a meaning, every section a source."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    UrlConstraints,
    ValidationInfo,
    field_validator,
)

from clickpost.errors import Whose
from clickpost.policy.units import Bytes, Day, Rate, Span

Amount = Annotated[int, Field(ge=0)]
LastingSpan = Annotated[Span, Field(gt=timedelta(0))]
Words = Annotated[str, Field(min_length=1)]
Url = Annotated[AnyUrl, UrlConstraints(allowed_schemes=["https", "http"], host_required=True)]


class Closed(BaseModel):
    """A mapping whose keys are all known; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Facts(Closed):
    """A mapping in which a value means what it says: NO is no boolean, "4" is no number."""

    model_config = ConfigDict(strict=True)


class Sourced(Facts):
    """A section of facts, with who says so and when somebody looked."""

    source: Url = Field(description="The page that states these facts.")
    checked: Day = Field(description="The day somebody looked at the source.")
    confirmed: bool = Field(
        True, description="False where only observation or an older text supports the facts."
    )
    note: str | None = Field(None, description="What a reader should know beside the numbers.")


class Within(Facts):
    """A range, both ends allowed; an absent end is open."""

    min: float | None = Field(None, allow_inf_nan=False, description="Lowest value allowed.")
    max: float | None = Field(None, allow_inf_nan=False, description="Highest value allowed.")


class Lasts(Facts):
    """A range of durations, both ends allowed."""

    min: Span | None = Field(None, description="Shortest, e.g. 3 s.")
    max: Span | None = Field(None, description="Longest, e.g. 15 min.")


Count = Literal["graphemes", "code_points", "utf16", "bytes", "mastodon", "x_weighted"]


class Api(Sourced):
    """The API that the connector speaks."""

    version: Words = Field(description="Version in use, as the platform names it.")
    sunset: Day | None = Field(None, description="Day the version stops; null while not announced.")
    base: Url | None = Field(
        None, description="Default address; null where every server is its own platform."
    )
    endpoints: dict[str, Url] = Field(
        default_factory=dict, description="Further addresses by name (token, upload, video, …)."
    )


class Credential(Facts):
    """One value that `clickpost connect` asks for."""

    why: Words = Field(description="What it is, and where its owner finds it.")
    secret: bool = Field(True, description="False for an id that may be shown.")
    required: bool = Field(True, description="False where the connector can do without.")
    aliases: list[str] = Field(default_factory=list, description="Other names people use for it.")
    instead_of: list[str] = Field(
        default_factory=list,
        description="Credentials not asked for where this one is given and none of them.",
    )
    alone: Words | None = Field(
        None, description="What it lacks without those; whoever connects is told."
    )


class TextRules(Sourced):
    """How long a text may be, and how this platform counts."""

    limit: Amount | None = Field(None, description="Most units of `count`; null for no limit.")
    count: Count = Field("graphemes", description="The unit in which the platform counts.")
    bytes: Amount | None = Field(None, description="Most UTF-8 bytes, beside `limit`.")
    links: Amount | None = Field(
        None, description="What every http(s) link counts; null: as written."
    )
    required: bool = Field(False, description="True where a post without it is refused.")
    forbidden: str = Field("", description="Characters that may not appear.")
    hashtags: Amount | None = Field(None, description="Most hashtags.")
    mentions: Amount | None = Field(None, description="Most @mentions.")
    digit_tags: bool = Field(
        True, description="False where `#` before digits only makes no hashtag, as in #2026."
    )


class TagRules(Sourced):
    """Tags that are sent beside the text."""

    total: Amount | None = Field(None, description="Most characters of all tags together.")
    max: Amount | None = Field(None, description="Most tags.")
    each: Amount | None = Field(None, description="Most characters of one tag.")
    quoting: bool = Field(
        False, description="True where a tag with a space counts two quotes more."
    )


ImageFormat = Literal["jpeg", "png", "webp", "gif", "heic", "avif"]


class ImageRules(Sourced):
    """What the platform accepts as an image."""

    max: Amount = Field(description="Most images in one post; 0 for none.")
    bytes: Bytes | None = Field(None, description="Largest file.")
    formats: list[ImageFormat] = Field(description="Formats accepted, the best one first.")
    pixels: Amount | None = Field(None, description="Most pixels, width times height.")
    width: Within = Field(default_factory=Within, description="Width in pixels.")
    height: Within = Field(default_factory=Within, description="Height in pixels.")
    edge: Amount | None = Field(None, description="Longest edge in pixels.")
    aspect: Within = Field(default_factory=Within, description="Width divided by height.")
    colour: Literal["any", "srgb"] = Field("any", description="Colour space that must be used.")
    animated: bool = Field(False, description="True where an animated image stays animated.")


class VideoRules(Sourced):
    """What the platform accepts as a video."""

    max: Amount = Field(description="Most videos in one post; 0 for none.")
    bytes: Bytes | None = Field(None, description="Largest file.")
    containers: list[Literal["mp4", "mov", "webm", "mkv", "avi", "mpeg"]] = Field(
        description="Containers accepted, the best one first."
    )
    codecs: list[Literal["h264", "hevc", "vp9", "vp8", "av1", "mpeg4", "prores"]] = Field(
        description="Video codecs accepted, the best one first."
    )
    audio: list[Literal["aac", "opus", "vorbis", "mp3", "ac3", "pcm", "flac"]] = Field(
        description="Audio codecs accepted, the best one first."
    )
    audio_rate: Amount | None = Field(None, description="Highest audio sample rate in hertz.")
    audio_channels: Amount | None = Field(None, description="Most audio channels.")
    audio_bitrate: Rate | None = Field(None, description="Highest audio bitrate.")
    bitrate: Rate | None = Field(None, description="Highest video bitrate.")
    fps: Within = Field(default_factory=Within, description="Frames a second.")
    frames: Amount | None = Field(None, description="Most frames.")
    pixels: Amount | None = Field(None, description="Most pixels, width times height.")
    width: Within = Field(default_factory=Within, description="Width in pixels.")
    height: Within = Field(default_factory=Within, description="Height in pixels.")
    aspect: Within = Field(default_factory=Within, description="Width divided by height.")
    lasts: Lasts = Field(default_factory=Lasts, description="Duration.")
    chroma: list[Literal["420", "422", "444"]] = Field(
        ["420"], description="Chroma subsampling accepted."
    )
    bit_depth: Amount = Field(8, description="Most bits a colour sample.")
    hdr: bool = Field(False, description="True where high dynamic range is taken as it is.")
    progressive: bool = Field(False, description="True where interlaced video is refused.")
    closed_gop: bool = Field(False, description="True where groups of pictures must be closed.")
    moov_in_front: bool = Field(False, description="True where the index must lead the file.")
    edit_lists: bool = Field(True, description="False where edit lists are refused.")


class Longest(Sourced):
    """How long a video of one sort may last."""

    lasts: LastingSpan = Field(description="Longest, e.g. 3 min.")


class AlbumRules(Sourced):
    """What several media in one post may be."""

    min: Amount = Field(2, description="Fewest media that make an album.")
    max: Amount = Field(description="Most media in one post.")
    mixed: bool = Field(False, description="True where images and videos may stand together.")
    video: VideoRules | None = Field(None, description="Rules for a video in an album, if others.")


class MediaRules(Sourced):
    """What a post must or may carry."""

    required: Literal["none", "any", "video"] = Field("none", description="What must be there.")
    pulled: bool = Field(False, description="True where the platform fetches images from a URL.")
    polls: bool = Field(False, description="True where uploads are processed before the send.")


class AltLimit(Sourced):
    """How long the description of one kind of medium may be."""

    limit: Amount | None = Field(None, description="Most units of `count`; null for no limit.")
    count: Count = Field("code_points", description="The unit in which the platform counts.")
    bytes: Amount | None = Field(None, description="Most UTF-8 bytes, beside `limit`.")


class AltRules(AltLimit):
    """The description of a medium for those who do not see it."""

    video: AltLimit | None = Field(None, description="What a video's may be, if other.")
    on: list[Literal["image", "video"]] = Field(
        ["image"],
        description="Which media carry it; empty where the platform has none.",
    )

    def limits_of(self, kind: str) -> AltLimit:
        """Return the limits for a medium of this kind."""
        return self.video if kind == "video" and self.video is not None else self


class ThreadRules(Sourced):
    """Whether posts can answer one another."""

    supported: bool = Field(description="True where a long text may become a thread.")


class Costs(Facts):
    """What one act takes from a budget, in what the budget counts."""

    post: Amount = Field(0, description="One post made visible; each part of a thread is one.")
    post_with_link: Amount | None = Field(
        None, description="One with an address in its text, where that takes another amount."
    )
    upload: Amount = Field(0, description="One file uploaded.")
    delete: Amount = Field(0, description="One post deleted.")
    look: Amount = Field(0, description="One look whether a post is there.")


class Budget(Sourced):
    """How many calls or posts fit in a window."""

    per: Whose = Field(description="Who shares the budget.")
    what: Literal["posts", "requests", "uploads", "containers", "units", "points", "usd_mills"] = (
        Field(description="What is counted; usd_mills are thousandths of a US dollar.")
    )
    total: Amount = Field(description="How many.")
    window: LastingSpan = Field(description="In how long, e.g. 3 h.")
    costs: Costs = Field(
        default_factory=lambda: Costs(),
        description="What our acts take from it, at least; what else is used, headers tell.",
    )
    resets: str | None = Field(
        None,
        description="IANA zone at whose midnight a window of 24 h begins; null: it slides.",
    )

    @field_validator("resets")
    @classmethod
    def _is_a_zone(cls, zone: str | None, given: ValidationInfo) -> str | None:
        if zone is not None and zone not in available_timezones():
            raise ValueError("needs an IANA time zone, e.g. America/Los_Angeles")
        if zone is not None and given.data.get("window") != timedelta(days=1):
            raise ValueError("is for a window of 24 h only")
        return zone


class Burst(Facts):
    """How many posts an account sends in a window, whatever the schedule says: our own choice."""

    posts: Amount = Field(25, description="How many; a thread counts once.")
    window: LastingSpan = Field(timedelta(hours=1), description="In how long, e.g. 1 h.")


class RepeatGuard(Sourced):
    """What happens to a post that says to an account what it got lately."""

    window: LastingSpan = Field(description="So long the same counts as said again, e.g. 24 h.")
    mode: Literal["warn", "block"] = Field(
        description="`warn`: whoever publishes is told; `block`: it needs an explicit `--again`."
    )


class TokenRules(Sourced):
    """How long access tokens last that have to be renewed before they end."""

    lives: LastingSpan = Field(description="How long a new one lasts, where no answer says it.")
    assumed: LastingSpan = Field(
        description="How long one of unknown age, as somebody hands it to us, is taken to last."
    )
    renew: LastingSpan = Field(
        description="One that ends within this is renewed: before a send, and by the sweep."
    )


_ADDRESS = r"^(https://[a-z0-9.-]+)?/[A-Za-z0-9/._-]+$"


def _an_address(text: str) -> str:
    if not re.match(_ADDRESS, text):
        raise ValueError("needs an https address, or a path where every server is its own")
    return text


#: An address, or its path alone where every server is its own platform.
Address = Annotated[
    str, AfterValidator(_an_address), Field(json_schema_extra={"pattern": _ADDRESS})
]


class LongLived(Facts):
    """How a token of an hour becomes one that lasts."""

    url: Address = Field(description="Where it is exchanged, by GET.")
    grant_type: Words = Field(description="What the exchange is called there.")


class OAuthRules(Sourced):
    """How an account's owner grants us access in a browser (OAuth 2, authorization code)."""

    authorize: Address = Field(description="The platform's page that asks the owner.")
    token: Address = Field(description="Where the code becomes a token.")
    register_at: Address | None = Field(
        None,
        alias="register",
        description="Where an app registers itself; null: an operator makes it by hand.",
    )
    scopes: list[Words] = Field(
        min_length=1, description="Permissions without which nothing is connected."
    )
    optional: list[Words] = Field(
        default_factory=list, description="Permissions that are asked for and may be refused."
    )
    whole: list[Words] = Field(
        default_factory=list,
        description="Asked for instead where a server knows none of the finer ones.",
    )
    separator: Literal[" ", ","] = Field(" ", description="What stands between two permissions.")
    pkce: bool = Field(description="True where PKCE (S256) is understood.")
    client_by: Literal["form", "basic"] = Field(
        "form", description="Where our app names itself: in the form, or by HTTP Basic."
    )
    parameters: dict[str, str] = Field(
        default_factory=dict, description="What else the platform's page has to be told."
    )
    refresh_token: bool = Field(
        False, description="True where a grant without a refresh token is of no use."
    )
    long_lived: LongLived | None = Field(
        None, description="How the token is exchanged for one that lasts; null: it does."
    )
    https: bool = Field(
        True,
        description="False where it also sends people back to http, at least on their own machine.",
    )
    callbacks: Literal["signed_request", "signed_event"] | None = Field(
        None,
        description="How it tells us who removed the app: `signed_request` is Meta's form (and its"
        " word that somebody wants their data deleted), `signed_event` TikTok's webhook; null: it"
        " does not.",
    )
    app_at: Words | None = Field(
        None, description="Where an operator makes the app; null where it registers itself."
    )


class Unknown(Sourced):
    """How a lost outcome is settled."""

    find: Literal["by_key", "by_record", "by_ticket", "by_feed", "ask"] = Field(
        description="Where to look."
    )
    key_lives: Span | None = Field(None, description="How long a repeated key is recognised.")
    settle: Span = Field(description="How long to wait before an absence counts as proof.")


class PreparedRules(Sourced):
    """How long uploads and reservations last."""

    lives: Span = Field(description="After this a prepared post is prepared anew.")


class Processing(Sourced):
    """How to ask how far the platform has come."""

    poll: LastingSpan = Field(description="Time between two questions.")
    give_up: LastingSpan = Field(description="After this an operator is told.")


Meaning = Literal[
    "transient",
    "rate_limited",
    "quota",
    "expired",
    "revoked",
    "scope",
    "account",
    "rejected",
    "ambiguous",
    "missing",
    "prepare_again",
    "not_ready",
    "developer",
]


class ErrorRule(Facts):
    """One answer of the platform, and what it means to us. All given keys must match."""

    status: int | None = Field(None, description="HTTP status.")
    code: str | None = Field(None, description="The platform's own name or number of the error.")
    subcode: str | None = Field(None, description="A second, finer code, where it has one.")
    contains: str | None = Field(None, description="A piece of the platform's message.")
    step: str | None = Field(None, description="Only in this step (publish, prepare, refresh, …).")
    means: Meaning = Field(description="Which of our classes it is.")
    retry_after: Span | None = Field(None, description="Wait, where the answer names no time.")
    per: Whose = Field(
        "account", description="Who is too fast: a `quota` or `rate_limited` stops all of them."
    )
    field: str | None = Field(None, description="The field of the post that is at fault.")


class Errors(Sourced):
    """What the platform's error answers mean; the first rule that matches wins."""

    rules: list[ErrorRule] = Field(description="From the most special to the most general.")


class Duty(Sourced):
    """What the platform demands we do with data, and how fast."""

    on: Literal["account_deleted", "disconnected", "revoked", "user_request", "age"] = Field(
        description="What starts the clock."
    )
    delete: Literal["origin_data", "tokens", "all"] = Field(description="What has to go.")
    within: Span | None = Field(None, description="In how long; null for `without delay`.")


class PlatformPolicy(Facts):
    """Everything that ClickPost knows about a platform and that is not code."""

    kind: Literal["platform"] = Field(description="What this file is.")
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="The platform's name in commands.")
    title: Words = Field(description="The platform's name for people.")
    api: Api = Field(description="The API that the connector speaks.")
    capabilities: list[str] = Field(description="What the connector can do; checked against it.")
    credentials: dict[str, Credential] = Field(description="What `connect` asks for.")
    scopes: dict[str, Words] = Field(description="Permissions to ask for, each with its purpose.")
    oauth: OAuthRules | None = Field(
        None, description="How an owner grants access in a browser, where that is possible."
    )
    text: TextRules = Field(description="The post's text (caption, description).")
    title_rules: TextRules | None = Field(
        None, alias="heading", description="The post's title, where the platform has one."
    )
    tags: TagRules | None = Field(None, description="Tags that are sent beside the text.")
    spoiler: bool = Field(False, description="True where a content warning counts with the text.")
    visibility: list[Literal["public", "unlisted", "private", "direct"]] = Field(
        ["public"],
        description="Who may see a post.",
    )
    media: MediaRules = Field(description="What a post must or may carry.")
    images: ImageRules = Field(description="What is accepted as an image.")
    video: VideoRules = Field(description="What is accepted as a video.")
    short: Longest | None = Field(
        None, description="What the platform shows as a short, if it is no wider than high."
    )
    unverified: Longest | None = Field(
        None, description="What an account may send that the platform does not trust with more."
    )
    album: AlbumRules | None = Field(None, description="What several media may be.")
    alt: AltRules = Field(description="Descriptions of media.")
    thread: ThreadRules = Field(description="Whether posts can answer one another.")
    budget: list[Budget] = Field(description="How much may be sent.")
    burst: Burst = Field(
        default_factory=lambda: Burst(),
        description="The burst guard: no fact about the platform but our own choice.",
    )
    cost: Annotated[str, Field(description="What a post costs, in words.")] = "free"
    repeat_guard: RepeatGuard | None = Field(
        None,
        description="What happens to a post that was sent lately; null: a warning, within 24 h.",
    )
    tokens: TokenRules | None = Field(
        None, description="How tokens are renewed ahead of their end, where they have to be."
    )
    unknown: Unknown = Field(description="How a lost outcome is settled.")
    prepared: PreparedRules = Field(description="How long uploads last.")
    processing: Processing = Field(description="How to ask how far the platform has come.")
    errors: Errors = Field(description="What its error answers mean.")
    duties: list[Duty] = Field(description="What it demands we do with data.")
    terms: str | None = Field(None, description="Terms that an operator should know of.")

    def video_rules(self, items: int) -> VideoRules:
        """Return the rules for a video among `items` media of one post."""
        if items > 1 and self.album is not None and self.album.video is not None:
            return self.album.video
        return self.video
