"""Keys are made, listed and revoked in the lab's database, and shown once."""

import json
from pathlib import Path

from typer.testing import CliRunner

from models.settings import Settings
from models.store import Store, keys
from service.cli.main import app


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_is_shown_once_and_works_until_it_is_revoked(tmp_path: Path) -> None:
    place = ("--data-dir", str(tmp_path), "--json")
    made = json.loads(run("create", "ada", "--role", "viewer", *place))
    listed = json.loads(run("list", *place))
    assert [(key["name"], key["role"], key["revoked_at"]) for key in listed["keys"]] == [("ada", "viewer", None)]
    assert made["key"] not in json.dumps(listed)
    store = Store(Settings(data_dir=tmp_path))
    with store.reading() as session:
        assert keys.verify(session, made["key"]) is not None
    run("revoke", "ada", *place)
    with store.reading() as session:
        assert keys.verify(session, made["key"]) is None
    store.dispose()


def test_the_first_key_is_made_once_and_again_when_all_are_revoked(tmp_path: Path) -> None:
    store = Store(Settings(data_dir=tmp_path))
    store.migrate()
    with store.writing() as session:
        assert keys.create_first(session)
        assert keys.create_first(session) is None
        keys.revoke(session, "first")
        assert keys.create_first(session)
    store.dispose()


def test_an_unknown_key_is_named_in_the_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["keys", "revoke", "bob", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "bob" in result.output
