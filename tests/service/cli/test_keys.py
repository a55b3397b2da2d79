"""Keys are made, listed and revoked in the lab's database, and shown once."""

import json
from pathlib import Path

from typer.testing import CliRunner

from models.settings import Settings
from models.store import keys
from service.cli.main import app
from tests.service.lab_of_one import client_of
from tests.stores import new_store


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_key_is_shown_once_and_works_until_it_is_revoked(tmp_path: Path) -> None:
    def status(key: str) -> int:
        settings = Settings(data_dir=tmp_path, auth=True, broker_url=f"redis+socket://{tmp_path}/nobody.sock")
        with client_of(settings) as client:
            return client.get("/api/v1/experiments", headers={"X-API-Key": key}).status_code

    place = ("--data-dir", str(tmp_path), "--json")
    made = json.loads(run("create", "ada", "--role", "viewer", *place))
    listed = json.loads(run("list", *place))
    assert [(key["name"], key["role"], key["revoked_at"]) for key in listed["keys"]] == [("ada", "viewer", None)]
    assert made["key"] not in json.dumps(listed)
    assert status(made["key"]) == 200
    run("revoke", "ada", *place)
    assert status(made["key"]) == 401


def test_the_first_key_is_made_once_and_again_when_all_are_revoked(tmp_path: Path) -> None:
    store = new_store(Settings(data_dir=tmp_path))
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
