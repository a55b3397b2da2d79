"""Options that many commands share, and how a command finds its lab."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import set_json

if TYPE_CHECKING:
    from models.settings import Settings
    from service.cli.client import Client

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="EPOCHAL_URL", help="Address of the lab; a lab running here is found by itself."),
]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", envvar="EPOCHAL_API_KEY", help="Key, where the lab asks for one.")
]
AsJson = Annotated[bool, typer.Option("--json", callback=set_json, help="Write JSON for scripts.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the lab's database and files (EPOCHAL_DATA_DIR).")
]
Id = Annotated[int, typer.Argument(metavar="ID", min=1, help="Number of the experiment.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; .png or .svg.")]

DEFAULT_URL = "http://127.0.0.1:8000"


def connect(url: str | None, api_key: str | None) -> "Client":
    """The lab at `url`, or the one running on this machine, or the usual address. Imports httpx: not for --help."""
    from service.cli.client import Client

    return Client(url or _local_lab() or DEFAULT_URL, api_key)


def settings_for(data_dir: Path | None, **changes: object) -> "Settings":
    """This machine's settings with flags over variables; flags that were not given change nothing."""
    from models.settings import Settings

    given = {name: value for name, value in {"data_dir": data_dir, **changes}.items() if value is not None}
    return Settings(**given)  # type: ignore[arg-type]


def _local_lab() -> str | None:
    """The address of a lab that runs on the usual or the chosen data directory."""
    import platformdirs

    from service.address import running_lab

    folder = Path(os.environ.get("EPOCHAL_DATA_DIR") or platformdirs.user_data_path("epochal"))
    found = running_lab(folder.expanduser())
    return str(found["url"]) if found else None
