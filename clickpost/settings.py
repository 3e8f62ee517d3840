"""Typed settings, each with a sentence; secrets have no default."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from clickpost.errors import InvalidInput
from clickpost.reach import Allowed, from_here, is_loopback

PROJECT = Path(__file__).resolve().parent.parent


def _default_home() -> Path:
    """Return the state directory: inside a clone its own `.clickpost`, else the user's data dir.

    PostgreSQL cannot live under a path with a space: such a clone has its own under `~/.clickpost`.
    """
    clone = (PROJECT / "pyproject.toml").is_file()
    usual = PROJECT / ".clickpost" if clone else Path(platformdirs.user_data_dir("clickpost"))
    if " " not in str(usual):
        return usual
    own = hashlib.sha256(str(PROJECT).encode()).hexdigest()[:8] if clone else "main"
    return Path.home() / ".clickpost" / own


class Settings(BaseSettings):
    """Where things are. Read from the environment, prefix `CLICKPOST_`."""

    model_config = SettingsConfigDict(env_prefix="CLICKPOST_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=_default_home, description="State of the one-machine stack.")
    database_url: SecretStr | None = Field(
        None, description="An existing PostgreSQL (≥ 15) for our data, instead of the embedded one."
    )
    prefect_api_url: str | None = Field(
        None,
        validation_alias=AliasChoices("PREFECT_API_URL", "CLICKPOST_PREFECT_API_URL"),
        description="An existing Prefect server, instead of the embedded one.",
    )
    prefect_auth: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("PREFECT_API_AUTH_STRING", "CLICKPOST_PREFECT_AUTH"),
        description="`user:password` for Prefect's UI and API: ours asks for it, an existing one"
        " is told it.",
    )
    policies: Path = Field(PROJECT / "policies", description="The folder of policy files.")
    host: str = Field("127.0.0.1", description="Address that our servers listen on.")
    prefect_port: int = Field(4200, description="Port of the Prefect server and its UI.")
    gateway_port: int = Field(4280, description="Port of the gateway.")
    sandbox_port: int = Field(4290, description="Port of the sandbox platforms.")
    public_url: str | None = Field(
        None, description="Where platforms reach the gateway, e.g. https://post.example.com."
    )
    media: Path | None = Field(
        None, description="The folder of originals and renditions; else `media` in `home`."
    )
    tombstones: Path | None = Field(
        None,
        description="The folder that remembers, outside the database and its backups, what was"
        " erased; else `tombstones` in `home`. Several machines share one.",
    )
    worker_limit: int = Field(64, description="Flow runs that one worker runs side by side.")
    master_key: SecretStr | None = Field(
        None, description="Key that wraps the data keys (base64, 32 bytes); else a key file."
    )
    master_key_old: SecretStr | None = Field(
        None, description="The former master key, while `audit rotate-keys` wraps anew."
    )
    signing_key: SecretStr | None = Field(
        None,
        description="Key that signs certificates (base64, 32 bytes); else a key file.",
    )
    person_secret: SecretStr | None = Field(
        None, description="Your personal secret, where people are declared; a file is safer."
    )
    person_secret_file: Path | None = Field(
        None, description="The file that holds your personal secret, which only you may read."
    )
    smtp_host: str | None = Field(None, description="Mail server that takes our notices.")
    smtp_port: int = Field(587, description="Its port: 587 for STARTTLS, 465 for TLS.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the way there is kept private; `none` sends no password."
    )
    smtp_user: str | None = Field(None, description="Who signs in at the mail server.")
    smtp_password: SecretStr | None = Field(None, description="With which password.")
    smtp_from: str | None = Field(
        None, description="The address that notices come from, e.g. clickpost@example.com."
    )
    privacy_address: str | None = Field(
        None,
        description="The address of the mailbox that takes people's requests about their data;"
        " answers to our letters go there.",
    )
    imap_host: str | None = Field(
        None, description="Mail server of the mailbox that takes people's requests."
    )
    imap_port: int = Field(993, description="Its port: 993 for TLS, 143 for STARTTLS.")
    imap_security: Literal["tls", "starttls", "none"] = Field(
        "tls", description="How the way there is kept private."
    )
    imap_user: str | None = Field(None, description="Who signs in at the mailbox.")
    imap_password: SecretStr | None = Field(None, description="With which password.")
    imap_folder: str = Field("INBOX", description="The folder that is read.")
    imap_keep: bool = Field(
        False,
        description="Leave mails that were taken in the mailbox, marked as read, instead of"
        " deleting them there.",
    )
    metrics_token: SecretStr | None = Field(
        None,
        description="Who brings it as `Bearer` reads `/metrics`; without one only this machine,"
        " and nobody where `CLICKPOST_PUBLIC_URL` is set.",
    )
    receivers: str = Field(
        "",
        description="Private networks and hosts that our webhooks and chats may call all the same,"
        " e.g. `10.1.0.0/16, hooks.corp.example`.",
    )
    log_format: str = Field("console", description="`console` or `json`.")
    log_level: str = Field("INFO", description="Lowest level that is logged.")

    @field_validator("receivers")
    @classmethod
    def _readable(cls, words: str) -> str:
        """Refuse at once what could not be read later."""
        try:
            Allowed.of(words)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return words

    @field_validator("home", "media", "tombstones", "policies", "person_secret_file")
    @classmethod
    def _from_here(cls, path: Path | None) -> Path | None:
        """Make a relative path absolute: our servers run in another folder than the command."""
        return path and path.expanduser().absolute()

    @cached_property
    def gateway_url(self) -> str:
        """Where the gateway is reached from outside (or on this machine)."""
        return (self.public_url or f"http://{from_here(self.host)}:{self.gateway_port}").rstrip("/")

    @cached_property
    def prefect_api(self) -> str:
        """Where Prefect's API is."""
        url = self.prefect_api_url or f"http://{from_here(self.host)}:{self.prefect_port}/api"
        return url.rstrip("/")

    @property
    def is_public(self) -> bool:
        """Whether others than this machine may reach our servers, or a proxy lets them."""
        return self.public_url is not None or not is_loopback(self.host)

    @cached_property
    def prefect_ui(self) -> str:
        """Where Prefect's UI is."""
        return self.prefect_api.removesuffix("/api")

    @cached_property
    def media_root(self) -> Path:
        """Where originals and renditions live."""
        return self.media or self.home / "media"

    @cached_property
    def tombstones_root(self) -> Path:
        """Where it is remembered what was erased."""
        return self.tombstones or self.home / "tombstones"
