"""`epochal data fetch`: fetches built-in datasets to this machine ahead of time."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import errors, say, shown, table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress

    from models.data.info import DatasetInfo


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Datasets, such as cifar10; none lists them all.")
    ] = None,
) -> None:
    """Fetch datasets ahead of time into the cache folder (EPOCHAL_CACHE_DIR), which all labs of a user share."""
    from models.data.catalogue import get_dataset
    from models.settings import read_settings

    cache_dir = read_settings().cache_dir
    if not names:
        list_fetched(cache_dir)
    for info in [get_dataset(name) for name in names or ()]:
        fetch_with_bar(info, cache_dir)


def list_fetched(cache_dir: "Path") -> None:
    """Print every dataset that can be fetched, and whether it has been."""
    from models.data.catalogue import list_datasets
    from models.data.dataset import is_fetched

    rows = [
        (
            info.name,
            info.title,
            f"{info.num_train}+{info.num_test}",
            f"{info.channels}x{info.size}x{info.size}",
            str(info.num_classes),
            "yes" if is_fetched(info, cache_dir) else "no",
        )
        for info in list_datasets()
    ]
    table(("name", "title", "images", "size", "classes", "fetched"), rows)


def fetch_with_bar(info: "DatasetInfo", cache_dir: "Path") -> None:
    """Fetch a dataset if it is not there yet, with a progress bar on the error output."""
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

    from models.data.dataset import fetch_dataset, is_fetched

    if is_fetched(info, cache_dir):
        say(f"{info.title} is in {shown(str(cache_dir))}")
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=errors) as bar:

        def progress(label: str, done_bytes: int, total_bytes: int | None) -> None:
            description = f"{info.title}: {label}"
            if not bar.tasks or bar.tasks[-1].description != description:
                _finish_last(bar)
                bar.add_task(description, total=total_bytes)
            bar.update(bar.tasks[-1].id, completed=done_bytes)

        folder = fetch_dataset(info, cache_dir, progress)
        _finish_last(bar)
    say(f"{info.title} is in {shown(str(folder))}")


def _finish_last(bar: "Progress") -> None:
    """Show a step whose size was unknown as a full bar."""
    if bar.tasks:
        last = bar.tasks[-1]
        bar.update(last.id, total=last.total or 1, completed=last.total or 1)
