"""What is typed becomes the body of a POST."""

from pathlib import Path

import pytest
import typer

from models.errors import InvalidRequest
from service.cli.body import apply_change, parse_text, read_body


class Presets:
    """Stands where a Client would: it knows the presets' names."""

    def get(self, path: str) -> dict[str, dict[str, object]]:
        assert path == "/presets"
        return {"experiments": {"lab-report/6e": {}}, "models": {"baseline": {}}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("epochs=5", {"epochs": 5}),
        ("optimizer.lr=1e-3", {"optimizer": {"lr": 1e-3}}),
        ("model=wide", {"model": "wide"}),
        ("name=3 blocks", {"name": "3 blocks"}),
        ("early_stopping=null", {"early_stopping": None}),
        ('tags=["a","b"]', {"tags": ["a", "b"]}),
        ("name=a=b", {"name": "a=b"}),
    ],
)
def test_a_change_is_read_as_json_where_it_is_json_and_else_as_a_word(change: str, expected: dict[str, object]) -> None:
    body: dict[str, object] = {}
    apply_change(body, change)
    assert body == expected


def test_a_change_inside_a_short_form_keeps_its_name() -> None:
    body = {"optimizer": "adam", "model": "baseline"}
    apply_change(body, "optimizer.lr=0.001")
    assert body == {"optimizer": {"name": "adam", "lr": 0.001}, "model": "baseline"}


@pytest.mark.parametrize("change", ["epochs", "=5", "optimizer.=1", ""])
def test_a_change_without_key_or_value_is_a_usage_error(change: str) -> None:
    with pytest.raises(typer.BadParameter):
        apply_change({}, change)


def test_a_yaml_file_is_read_as_the_lab_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("model: baseline\noptimizer: {lr: 1e-2}\n")
    assert read_body(str(file), ["epochs=2"], Presets()) == {  # type: ignore[arg-type]
        "model": "baseline",
        "optimizer": {"lr": 0.01},
        "epochs": 2,
    }


def test_a_name_is_an_experiment_preset_or_a_network() -> None:
    assert read_body("lab-report/6e", [], Presets()) == {"preset": "lab-report/6e"}  # type: ignore[arg-type]
    assert read_body("baseline", [], Presets()) == {"model": "baseline"}  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter, match="no file"):
        read_body("nowhere.yaml", [], Presets())  # type: ignore[arg-type]


def test_text_that_is_no_object_or_no_yaml_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="object"):
        parse_text(b"- 1\n- 2\n", "")
    with pytest.raises(InvalidRequest):
        parse_text(b"{", ".json")
