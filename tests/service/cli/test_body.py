"""Arguments become the body of a POST."""

import io
import json
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from service.cli.body import apply_change, parse_text, read_body
from service.cli.studies import study_body


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
        ("optimizer.lr=.05", {"optimizer": {"lr": 0.05}}),
        ("class_weights=[1, .5]", {"class_weights": [1, 0.5]}),
        ("evaluate_test=True", {"evaluate_test": True}),
        ("x=False", {"x": False}),
        ("x=no", {"x": "no"}),
        ("x=~", {"x": None}),
        ("x=", {"x": None}),
        ("x=1_000", {"x": "1_000"}),
        ("x=2024-01-01", {"x": "2024-01-01"}),
        ("augmentation={hflip: 0.5, vflip: .5}", {"augmentation": {"hflip": 0.5, "vflip": 0.5}}),
        ("model=%wide", {"model": "%wide"}),
        ("model=*wide", {"model": "*wide"}),
        ("name=2024", {"name": "2024"}),
        ("name=1e3", {"name": "1e3"}),
        ("name=True", {"name": "True"}),
        ("name=no: 1", {"name": "no: 1"}),
        ("name=#7", {"name": "#7"}),
        ('name="2024"', {"name": "2024"}),
        ("name=", {"name": ""}),
        ("name=null", {"name": ""}),
        ("name=[a]", {"name": "[a]"}),
        ("name={a: 1}", {"name": "{a: 1}"}),
        ("name=.inf", {"name": ".inf"}),
        ("tags=[2024, a]", {"tags": ["2024", "a"]}),
        ('tags=[1, 2.50, yes, 2024-01-01, null, "3"]', {"tags": ["1", "2.50", "yes", "2024-01-01", "null", "3"]}),
        ("tags=- 1\n- 2.50", {"tags": ["1", "2.50"]}),
        ("tags=[a,\n1.0]", {"tags": ["a", "1.0"]}),
        ("tags=null", {"tags": []}),
        ("tags=#7", {"tags": "#7"}),
        ("tags=[]", {"tags": []}),
    ],
)
def test_a_change_is_read_as_yaml_and_a_name_is_text(change: str, expected: dict[str, object]) -> None:
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


def test_a_folder_of_a_presets_or_networks_name_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are saved in folders that are called so: `make lab-report` makes lab-report/."""
    monkeypatch.chdir(tmp_path)
    for folder in ("baseline", "lab-report/6e"):
        Path(folder).mkdir(parents=True)
    assert read_body("baseline", [], Presets()) == {"model": "baseline"}  # type: ignore[arg-type]
    assert read_body("lab-report/6e", [], Presets()) == {"preset": "lab-report/6e"}  # type: ignore[arg-type]
    assert study_body("lab-report") == {"preset": "lab-report"}
    for folder in (".", "..", "baseline/", "./baseline", str(tmp_path)):
        with pytest.raises(typer.BadParameter, match="is a folder"):
            read_body(folder, [], Presets())  # type: ignore[arg-type]
        with pytest.raises(typer.BadParameter, match="is a folder"):
            study_body(folder)


def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter, match="no file"):
        read_body("nowhere.yaml", [], Presets())  # type: ignore[arg-type]


def test_text_that_is_no_object_or_no_yaml_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="object"):
        parse_text(b"- 1\n- 2\n", "")
    with pytest.raises(InvalidRequest):
        parse_text(b"{", ".json")


def test_a_change_reaches_into_lists() -> None:
    body: dict[str, object] = {"model": {"blocks": [{"filters": 8}, {"filters": 16}]}, "tags": ["a"]}
    apply_change(body, "model.blocks.1.filters=32")
    apply_change(body, "tags.0=7")
    assert body == {"model": {"blocks": [{"filters": 8}, {"filters": 32}]}, "tags": ["7"]}
    for change in ("model.blocks.2.filters=1", "model.blocks.x=1", "tags.-1=1"):
        with pytest.raises(typer.BadParameter, match="not an index in a list of"):
            apply_change(body, change)


@pytest.mark.parametrize("change", ["x=[1, 2", "x={a: 1", 'x="open'])
def test_a_list_or_quote_that_is_not_closed_is_a_usage_error(change: str) -> None:
    with pytest.raises(typer.BadParameter, match="cannot be read"):
        apply_change({}, change)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
        st.none()
        | st.booleans()
        | st.integers(-(2**40), 2**40)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
        max_size=4,
    ),
    st.sampled_from(["", ".txt", ".json", ".yaml", ".yml", ".spec"]),
    st.booleans(),
    st.sampled_from([None, 2]),
)
def test_json_is_read_whatever_the_file_is_called(
    document: dict[str, object], suffix: str, only_ascii: bool, indent: int | None
) -> None:
    assert parse_text(json.dumps(document, ensure_ascii=only_ascii, indent=indent).encode(), suffix) == document


def test_json_and_yaml_are_read_from_pipes_and_files_without_a_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in (json.dumps({"model": "wide", "name": "\U0001f600"}), "model: wide\nname: \U0001f600\n"):
        (tmp_path / "spec").write_text(text)
        assert read_body(str(tmp_path / "spec"), [], Presets())["name"] == "\U0001f600"  # type: ignore[arg-type]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert read_body("-", [], Presets())["name"] == "\U0001f600"  # type: ignore[arg-type]
    with pytest.raises(typer.BadParameter, match="is a folder"):
        read_body(str(tmp_path), [], Presets())  # type: ignore[arg-type]
    with pytest.raises(typer.BadParameter, match="longer than"):
        read_body("/dev/zero", [], Presets())  # type: ignore[arg-type]
