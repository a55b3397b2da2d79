"""Commands `epochal keys`: create, list and revoke API keys in the lab's database, which stores them hashed."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import Unavailable
from models.private import private
from service.cli import options
from service.cli.output import Mode, age, errors, print_json, say, shown, table

if TYPE_CHECKING:
    from models.store import Store

Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name, for its owner.")]

app = typer.Typer(no_args_is_help=True, help="API keys of the lab on this machine.")


class KeyRole(StrEnum):
    """What a key allows."""

    VIEWER = "viewer"
    """Reads."""
    SUBMITTER = "submitter"
    """Reads, submits, cancels and deletes."""


@app.command()
def create(
    name: Name,
    role: Annotated[KeyRole, typer.Option(help="A viewer reads; a submitter also submits.")] = KeyRole.SUBMITTER,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Create a key and show it, once."""
    from models.store import keys
    from models.store.states import Role

    with _opened(data_dir) as store, store.writing() as session:
        _, text = keys.create(session, name, Role(role.value))
    if Mode.json:
        print_json({"name": name, "role": role.value, "key": text})
        return
    say(
        f"key of {name} ({role.value}), not shown again; send it as `Authorization: Bearer KEY` or set EPOCHAL_API_KEY:"
    )
    typer.echo(text)


@app.command("list")
def list_keys(data_dir: options.DataDir = None, as_json: options.AsJson = False) -> None:
    """List keys: names and roles, not the keys themselves."""
    from models.store import keys

    with _opened(data_dir) as store, store.reading() as session:
        found = [
            {
                "name": key.name,
                "role": key.role.value,
                "created_at": key.created_at.isoformat(),
                "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
            }
            for key in keys.list(session)
        ]
    if Mode.json:
        print_json({"keys": found})
    elif not found:
        say("no keys; `epochal keys create NAME` creates one")
    else:
        rows = [
            (shown(key["name"]), str(key["role"]), age(key["created_at"]), "revoked" if key["revoked_at"] else "")
            for key in found
        ]
        table(("name", "role", "created", ""), rows)


@app.command()
def revoke(name: Name, data_dir: options.DataDir = None, as_json: options.AsJson = False) -> None:
    """Revoke a key; it stops working within seconds."""
    from models.store import keys

    with _opened(data_dir) as store, store.writing() as session:
        keys.revoke(session, name)
    if Mode.json:
        print_json({"name": name, "revoked": True})
    say(f"the key of {name} is revoked")


@contextmanager
def _opened(data_dir: Path | None) -> Iterator["Store"]:
    """Open and migrate the lab's database; it may be in use by a running lab."""
    from models.store import Store
    from models.store.store import describe_database

    settings = options.settings_for(data_dir)
    if not settings.database_url and not (settings.data_dir / "epochal.db").exists():
        errors.print(f"no lab was started in {shown(settings.data_dir)} yet; creating its database", style="yellow")
    store = Store(settings)
    try:
        with private():
            store.migrate()
            yield store
    except Unavailable as error:
        raise Unavailable(f"{describe_database(settings)}: {error.detail}", fix=error.fix) from error
    finally:
        store.dispose()
