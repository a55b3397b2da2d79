"""Options shared by commands, and finding the lab to connect to."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.client_settings import NAMES, ClientSettings, read_without_pydantic
from models.errors import EpochalError
from service.cli.output import set_json

if TYPE_CHECKING:
    from models.settings import Settings
    from service.cli.client import Client


def read_path(text: str) -> Path:
    """Parse a path; an empty one, such as from an unset variable, is an error and not the working directory."""
    if not text.strip():
        raise typer.BadParameter("is empty; name a folder")
    return Path(text)


Url = Annotated[
    str | None, typer.Option("--url", help="Address of the lab (EPOCHAL_URL); one running here is found automatically.")
]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="API key, where the lab requires one (EPOCHAL_API_KEY).")]
AsJson = Annotated[bool, typer.Option("--json", callback=set_json, help="Write JSON for scripts.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        parser=read_path,
        help="Folder of the lab's database and files (EPOCHAL_DATA_DIR).",
    ),
]
Id = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the experiment.")]
Ids = Annotated[list[int], typer.Argument(metavar="ID...", min=1, help="Numbers of the experiments.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; .png or .svg.")]


class LabNotRunning(EpochalError):
    """The lab of the given data directory is not running; no other is used instead."""

    code = "lab-not-running"
    title = "This lab is not running"


def connect(url: str | None, api_key: str | None, data_dir: Path | None = None) -> "Client":
    """Connect to the lab at `url`, or to that of the data directory, or to the default address.

    Raises LabNotRunning if a data directory was given and its lab is not running. Imports httpx: not for --help.
    """
    settings = read_client_settings(url, api_key, data_dir)
    from service.cli.client import Client

    named = names_a_lab(settings, url, data_dir)
    return Client(settings.url if named else _local_lab(settings), settings.api_key)


def read_client_settings(url: str | None, api_key: str | None, data_dir: Path | None) -> ClientSettings:
    """Read what a client of a lab needs, from variables overridden by flags; a flag that is None is ignored.

    Raises InvalidSettings with one line for each variable, of any setting, or flag that cannot be used.
    """
    flags = {"url": url, "api_key": api_key, "data_dir": data_dir}
    given = {name: value for name, value in flags.items() if value is not None}
    if (found := read_without_pydantic(given)) is not None:
        return found
    settings = settings_for(data_dir, url=url, api_key=api_key)
    named = frozenset(settings.model_fields_set.intersection(NAMES))
    return ClientSettings(settings.url, settings.api_key, settings.data_dir, named)


def names_a_lab(settings: ClientSettings, url: str | None, data_dir: Path | None) -> bool:
    """Whether a lab is given by its address; a --data-dir takes precedence over EPOCHAL_URL, as flags do."""
    return "url" in settings.given and (url is not None or data_dir is None)


def settings_for(data_dir: Path | None, **flags: object) -> "Settings":
    """Read the settings; flags take precedence over variables, and None leaves a setting unchanged."""
    from models.settings import read_settings

    return read_settings(data_dir=data_dir, **flags)


def _local_lab(settings: ClientSettings) -> str:
    """Return the address of the lab running on the data directory."""
    from service.lab.address import running_lab

    if found := running_lab(settings.data_dir):
        return str(found["url"])
    if "data_dir" in settings.given:
        raise LabNotRunning(
            f"no lab runs on {settings.data_dir} (--data-dir or EPOCHAL_DATA_DIR)",
            fix=f"Start it with `epochal up`, or give the address of another one: --url {settings.url}",
        )
    return settings.url
