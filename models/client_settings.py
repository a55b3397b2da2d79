"""What a command needs to know to reach a lab: its address, the key, the data directory.

Read as all settings are (`models.settings`), by the same functions. Where there is nothing else to check, pydantic is
not imported for it, which takes a third of the time in which a command starts.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.urls import absolute, read_lab_url

PREFIX = "EPOCHAL_"
SECRETS = Path("/run/secrets")
"""Where containers are given secrets as files: epochal_broker_password holds what EPOCHAL_BROKER_PASSWORD would."""
DEFAULT_URL = "http://127.0.0.1:8000"
NAMES = ("url", "api_key", "data_dir")


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The part of the settings that a client of a lab needs."""

    url: str
    api_key: str | None
    data_dir: Path
    given: frozenset[str]
    """Those of the three that a flag or a variable names."""


def read_without_pydantic(flags: Mapping[str, Any]) -> ClientSettings | None:
    """Read them from variables, overridden by flags; None where all settings have to be read to know what is wrong.

    That is where another setting is given, a secret may be there, or a value cannot be used.
    """
    variables = {name.upper(): value for name, value in os.environ.items() if name.upper().startswith(PREFIX) and value}
    if SECRETS.is_dir() or variables.keys() - {PREFIX + name.upper() for name in NAMES}:
        return None
    texts = {name: variables[key] for name in NAMES if (key := PREFIX + name.upper()) in variables}
    try:
        return _read({**texts, **flags})
    except ValueError:
        return None


def _read(values: Mapping[str, Any]) -> ClientSettings:
    """Read what is given, without blanks around it. Raises ValueError."""
    if blank := [name for name, value in values.items() if isinstance(value, str) and not value.strip()]:
        raise ValueError(f"{blank[0]} is blank")  # which leaves some settings unset and is wrong for others
    return ClientSettings(
        url=read_lab_url(values["url"].strip()) if "url" in values else DEFAULT_URL,
        api_key=check_key(values["api_key"]) if "api_key" in values else None,
        data_dir=absolute(Path(str(values["data_dir"]).strip())) if "data_dir" in values else default_data_dir(),
        given=frozenset(values),
    )


def default_data_dir() -> Path:
    """The data directory of a user who names none."""
    import platformdirs

    return absolute(platformdirs.user_data_path("epochal"))


def check_key(text: str) -> str:
    """An API key as it can be sent in a header. Raises ValueError, which does not repeat the key."""
    wrong = next((place for place, letter in enumerate(text) if not "!" <= letter <= "~"), None)
    if wrong is not None:
        what = "a line break or blank" if text[wrong].isspace() else "a character that no key has"
        raise ValueError(f"a key as `epochal keys create` shows it; this one has {what} at position {wrong + 1}")
    return text
