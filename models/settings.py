"""The settings of one lab, read from EPOCHAL_* variables.

`epochal up` turns its flags into these variables for the processes that it starts, so that a flag, a variable and a
compose file all mean the same.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.addresses import normal_network, normal_origin, normal_prefix


def _split(value: Any) -> Any:
    """A list of words out of `a,b` or JSON."""
    if not isinstance(value, str):
        return value
    if value.strip().startswith("["):
        return json.loads(value)
    return [word.strip() for word in value.split(",") if word.strip()]


def _normal_origins(values: list[str]) -> list[str]:
    return [normal_origin(value) for value in values]


def _normal_networks(values: list[str]) -> list[str]:
    return [str(normal_network(value)) for value in values]


SECRETS = Path("/run/secrets")
"""Where containers are given secrets as files: epochal_broker_password holds what EPOCHAL_BROKER_PASSWORD would."""


class Settings(BaseSettings):
    """One lab's settings; each is the variable EPOCHAL_ and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="EPOCHAL_", extra="ignore", frozen=True, secrets_dir=SECRETS if SECRETS.is_dir() else None
    )

    data_dir: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("epochal"),
        description="Where this lab keeps its database, artifacts and broker files.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("epochal"),
        description="Where datasets and pretrained weights are kept, shared by every lab of this user.",
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL; SQLite in the data directory when not given."
    )
    broker_url: str | None = Field(
        default=None, description="redis:// or redis+socket:// URL; `epochal up` starts its own broker when not given."
    )
    broker_password: str | None = Field(
        default=None, repr=False, description="The broker's password, for a broker_url that has none in it."
    )
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port the API listens on; 0 takes a free one.")
    workers: int = Field(default=1, ge=0, le=64, description="Training workers that `epochal up` starts.")
    url: str = Field(default="http://127.0.0.1:8000", description="Where the CLI finds the lab.")
    api_key: str | None = Field(default=None, description="The key that the CLI sends.")
    auth: bool = Field(default=False, description="Whether the API demands a key; always on beyond loopback.")
    allowed_hosts: list[str] = Field(
        default_factory=lambda: ["localhost", "127.0.0.1", "[::1]"],
        description="Host names the API answers to; others are refused (DNS rebinding).",
    )
    allowed_origins: Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_normal_origins)] = Field(
        default_factory=list,
        description="Origins of other sites whose pages may use the API from a browser (CORS), with commas between.",
    )
    root_path: Annotated[str, AfterValidator(normal_prefix)] = Field(
        default="", description="The path under which a proxy shows the lab, like /epochal."
    )
    trusted_proxies: Annotated[list[str], NoDecode, BeforeValidator(_split), AfterValidator(_normal_networks)] = Field(
        default_factory=list,
        description="Addresses and networks of proxies whose X-Forwarded headers are believed; none by default.",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    lease_seconds: float = Field(
        default=15.0, gt=0, description="How long a worker may be silent before its run is given to another."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Attempts after which a run that kills its worker has failed."
    )
    stall_seconds: float = Field(
        default=300.0, gt=0, description="How long training may make no progress before it is ended."
    )
    max_upload_mb: int = Field(default=64, ge=1, description="Largest request body in megabytes.")
    requests_per_minute: int = Field(default=1200, ge=1, description="Requests that one API key may make.")
    max_queued: int = Field(default=200, ge=1, description="Experiments that one API key may have in the queue.")
    max_stored: int = Field(default=10_000, ge=1, description="Experiments that one API key may have in the store.")
    max_disk_mb: int = Field(
        default=50_000, ge=1, description="Checkpoints, weights and kernels that one API key's experiments may keep."
    )
    upload_mb_per_hour: int = Field(default=4096, ge=1, description="Request bodies that one API key may send.")

    @property
    def resolved_database_url(self) -> str:
        """The database's URL, with the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'epochal.db'}"

    @property
    def experiments_dir(self) -> Path:
        """Where artifacts are kept: one folder an experiment, one below it an attempt."""
        return self.data_dir / "experiments"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
