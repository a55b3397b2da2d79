"""Which commands are built."""

import pytest
from typer.testing import CliRunner

from service.cli.main import app, build_only


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are as before when a test has ended."""
    monkeypatch.setattr(app, "registered_commands", app.registered_commands)
    monkeypatch.setattr(app, "registered_groups", app.registered_groups)


def exit_code(*arguments: str) -> int:
    return CliRunner().invoke(app, arguments).exit_code


def test_all_are_there_unless_one_of_them_is_named() -> None:
    for name in ("", "--help", "clasify", "classify_folder"):
        build_only(name)
        assert [exit_code(*each, "--help") for each in (["lr-test"], ["list"], ["model", "set"])] == [0, 0, 0]
    assert "Did you mean" in CliRunner().invoke(app, ["clasify"]).stderr


@pytest.mark.parametrize("named", [["lr-test"], ["list"], ["classify"], ["model", "set"]])
def test_the_one_that_is_named_is_the_only_one(named: list[str]) -> None:
    build_only(named[0])
    assert exit_code(*named, "--help") == 0
    assert exit_code("show", "--help") == 2
    assert exit_code("--help") == 0
