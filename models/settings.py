"""The settings of one lab, read from EPOCHAL_* variables.

`epochal up` turns its flags into these variables for the processes that it starts, so that a flag, a variable and a
compose file all mean the same. Every process and command reads them here, and so in one form: paths are absolute, an
empty variable counts as unset, a list is JSON or names with commas between them.
"""

import json
import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, get_origin

import platformdirs
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUseDefault
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.addresses import normal_network, normal_origin, normal_prefix
from models.client_settings import DEFAULT_URL, PREFIX, SECRETS, check_key, default_data_dir
from models.errors import InvalidSettings
from models.urls import absolute, mask, read_broker_url, read_database_url, read_lab_url

NEVER_SHOWN = ("api_key", "broker_password")
DATABASE_FILE = "epochal.db"
MOST_SECONDS = 1e8
DEVICES = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
HOST_NAME = re.compile(r"\*|\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
KUBERNETES = (
    "Kubernetes sets this variable in every pod beside a service called epochal: set EPOCHAL_PORT in the pod, "
    "or enableServiceLinks: false"
)


class Settings(BaseSettings):
    """One lab's settings; each is the variable EPOCHAL_ and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        validate_default=True,
        extra="ignore",
        frozen=True,
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
    )

    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Folder of this lab's database, artifacts and broker files.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("epochal"),
        description="Folder of datasets and pretrained weights, shared by every lab of this user.",
    )
    database_url: str | None = Field(
        default=None,
        description="postgresql://USER:PASSWORD@HOST/NAME or sqlite:////FILE; SQLite in the data directory by default.",
    )
    broker_url: str | None = Field(
        default=None, description="redis:// or redis+socket:// URL; `epochal up` starts its own broker when not given."
    )
    broker_password: str | None = Field(
        default=None, repr=False, description="The broker's password, for a broker_url that has none in it."
    )
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port the API listens on; 0 for any free one.")
    workers: int = Field(default=1, ge=0, le=64, description="Training workers that `epochal up` starts.")
    url: str = Field(default=DEFAULT_URL, description="Address of the lab, for the CLI.")
    api_key: str | None = Field(default=None, description="The key that the CLI sends.")
    auth: bool = Field(default=False, description="Whether the API requires a key; always beyond loopback.")
    allowed_hosts: list[str] = Field(
        default_factory=lambda: ["localhost", "127.0.0.1", "[::1]"],
        description="Host names the API answers to; others are refused (DNS rebinding).",
    )
    allowed_origins: list[str] = Field(
        default_factory=list,
        description="Origins of other sites whose pages may use the API from a browser (CORS), with commas between.",
    )
    root_path: str = Field(default="", description="Path prefix under which a proxy publishes the lab: /epochal.")
    trusted_proxies: list[str] = Field(
        default_factory=list,
        description="Addresses and networks of proxies whose X-Forwarded headers are trusted; none by default.",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    cuda_graphs: bool = Field(
        default=True,
        description="Whether steps are recorded as CUDA graphs on a GPU: small networks train several times faster.",
    )
    lease_seconds: float = Field(
        default=15.0,
        gt=0,
        le=MOST_SECONDS,
        description="How long a worker may be silent before its run is given to another.",
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Attempts after which a run that kills its worker has failed."
    )
    stall_seconds: float = Field(
        default=300.0, gt=0, le=MOST_SECONDS, description="How long training may make no progress before it is ended."
    )
    max_upload_mb: int = Field(default=64, ge=1, description="Largest request body in megabytes.")
    requests_per_minute: int = Field(default=1200, ge=1, description="Requests that one API key may make.")
    max_queued: int = Field(default=200, ge=1, description="Experiments that one API key may have in the queue.")
    max_stored: int = Field(default=10_000, ge=1, description="Experiments that one API key may have in the store.")
    max_disk_mb: int = Field(
        default=50_000,
        ge=1,
        description="Disk space for one API key's experiments, datasets and uploads, in megabytes.",
    )
    max_dataset_mb: int = Field(
        default=20_000, ge=1, description="Largest archive of images that may be uploaded as a dataset, in megabytes."
    )
    webhook_private: bool = Field(
        default=False,
        description="Whether webhooks may be sent to this machine and private networks, not public addresses alone.",
    )
    upload_mb_per_hour: int = Field(default=4096, ge=1, description="Request bodies that one API key may send.")

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value: Any, info: ValidationInfo) -> Any:
        """A variable without the blanks around it; blank is unset; a list is JSON, or names between commas."""
        if not isinstance(value, str) or info.field_name in NEVER_SHOWN:
            return value
        value, field = value.strip(), cls.model_fields[str(info.field_name)]
        if not value and field.default != "":
            raise PydanticUseDefault
        is_list = get_origin(field.annotation) is list
        return _split_list(value) if is_list else value

    @field_validator("data_dir", "cache_dir")
    @classmethod
    def _follow(cls, value: Path) -> Path:
        return absolute(value)

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str | None) -> str | None:
        return None if value is None else read_database_url(value)

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, value: str | None) -> str | None:
        return None if value is None else read_broker_url(value)

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        return read_lab_url(value)

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        """An address or a name; an IPv6 address may have the brackets that it has in a URL."""
        if re.search(r"[\s/@\[\]]", bare := value.removeprefix("[").removesuffix("]")):
            raise ValueError("an address of this machine without scheme and port, as 127.0.0.1, 0.0.0.0 or ::1")
        if bare.count(":") == 1:
            raise ValueError("an address without a port, which is EPOCHAL_PORT")
        return bare

    @field_validator("device")
    @classmethod
    def _check_device(cls, value: str) -> str:
        if not DEVICES.fullmatch(value.lower()):
            raise ValueError("auto, cpu, cuda or cuda:N")
        return value.lower()

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, value: str | None) -> str | None:
        return None if value is None else check_key(value)

    @field_validator("allowed_hosts")
    @classmethod
    def _check_allowed_hosts(cls, value: list[str]) -> list[str]:
        return [_read_host_name(name) for name in value]

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: list[str]) -> list[str]:
        return [normal_origin(origin) for origin in value]

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        return normal_prefix(value)

    @field_validator("trusted_proxies")
    @classmethod
    def _check_trusted_proxies(cls, value: list[str]) -> list[str]:
        return [str(normal_network(network)) for network in value]

    @property
    def database_path(self) -> Path:
        """The SQLite file that is the database where no URL names another."""
        return self.data_dir / DATABASE_FILE

    @property
    def experiments_dir(self) -> Path:
        """Folder of artifacts, with one folder per experiment and attempt."""
        return self.data_dir / "experiments"

    @property
    def datasets_dir(self) -> Path:
        """Folder of uploaded datasets, with one folder per name and version."""
        return self.data_dir / "datasets"

    @property
    def uploads_dir(self) -> Path:
        """Folder of archives that are being uploaded or wait to be imported."""
        return self.data_dir / "uploads"


def read_settings(**flags: Any) -> Settings:
    """Read settings from variables, overridden by `flags`; a flag that is None is ignored.

    Raises InvalidSettings with one line for each variable or flag that cannot be used.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = {entry["loc"][0]: entry for entry in reversed(error.errors(include_url=False))}
        lines = [_describe(entry, given) for entry in reversed(first.values())]
        wrong_port = os.environ.get(f"{PREFIX}PORT", "").startswith("tcp://") and "port" not in given
        raise InvalidSettings("\n".join(lines), fix=KUBERNETES if wrong_port else None) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once. Raises InvalidSettings."""
    return read_settings()


def settings_or_exit() -> Settings:
    """The settings of this process; where they cannot be used, the reason on standard error and exit code 2."""
    try:
        return get_settings()
    except InvalidSettings as error:
        exit_for(error)


def exit_for(error: InvalidSettings) -> NoReturn:
    """End the process with exit code 2 and one message, in place of a traceback that buries it."""
    sys.stderr.write(f"{error.title}: {error.detail}" + (f". {error.fix}\n" if error.fix else "\n"))
    sys.exit(2)


def _split_list(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, list):
        return found
    return [name.strip() for name in text.split(",") if name.strip()]


def _read_host_name(text: str) -> str:
    """Normalise a host name as in a Host header: lower case, no port, IDNA in ASCII."""
    name = text.strip().lower().rstrip(".")
    if name.count(":") > 1 and not name.startswith("["):
        name = f"[{name}]"
    try:
        name = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not HOST_NAME.fullmatch(name):
        raise ValueError(f"host names without scheme and port, as lab.example,10.0.0.7 ({mask(text)!r} is not one)")
    return name


def _describe(entry: ErrorDetails, flags: dict[str, Any]) -> str:
    """Describe an invalid setting in one line: variable or flag, value, expected form."""
    name = str(entry["loc"][0])
    source = f"--{name.replace('_', '-')}" if name in flags else f"{PREFIX}{name.upper()}"
    reason = (entry.get("ctx") or {}).get("error")
    wanted = str(reason) if isinstance(reason, ValueError) else _form_of(Settings.model_fields[name])
    if name in NEVER_SHOWN:
        return f"{source} (not shown) must be {wanted}"
    held = repr(mask(str(entry["input"] if name in flags else os.environ.get(source, entry["input"]))))
    joint = ": " if wanted.startswith("'") else " and must be "
    return f"{source} is {held if len(held) < 200 else held[:200] + '...'}{joint}{wanted}"


def _form_of(field: FieldInfo) -> str:
    """What a setting must be, by its type and bounds."""
    bounds = {
        name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt", "le") if hasattr(rule, name)
    }
    if field.annotation is bool:
        return "true or false"
    if field.annotation not in (int, float):
        return "names with commas between them" if get_origin(field.annotation) is list else "text"
    kind = "a whole number" if field.annotation is int else "a number"
    if "ge" in bounds and "le" in bounds:
        return f"{kind} from {bounds['ge']:,} to {bounds['le']:,}"
    low = f" of at least {bounds['ge']:,}" if "ge" in bounds else f" above {bounds['gt']:g}" if "gt" in bounds else ""
    return f"{kind}{low}" + (f" and at most {bounds['le']:,.0f}" if "le" in bounds else "")
