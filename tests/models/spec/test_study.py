"""Studies as they are written: rows from variants and grids, and every mistake named with its place."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SpecError
from models.spec.presets import study_presets
from models.spec.rows import cloned, load_study, parse_study
from models.spec.study import read_duration

ONE = {"title": "one", "base": "baseline", "variants": [{"key": "wide", "overrides": {"model": "wide"}}]}


def problems(body: Any) -> dict[str, str]:
    with pytest.raises(SpecError) as raised:
        parse_study(body)
    return {entry["field"]: entry["message"] for entry in raised.value.errors}


def test_the_base_is_a_row_and_the_baseline_unless_another_is_named() -> None:
    assert [(row.key, row.baseline) for row in parse_study(ONE).rows] == [("base", None), ("wide", "base")]
    named = parse_study({**ONE, "baseline": "wide"})
    assert [(row.key, row.baseline) for row in named.rows] == [("wide", None)]


def test_a_variant_that_equals_the_base_is_the_baseline() -> None:
    body = {**ONE, "variants": [*ONE["variants"], {"key": "same", "overrides": {"batch_size": 32}}]}
    assert [(row.key, row.baseline) for row in parse_study(body).rows] == [("wide", "same"), ("same", None)]


def test_overrides_are_nested_or_have_dots_and_may_name_a_preset() -> None:
    nested = parse_study({**ONE, "variants": [{"key": "a", "overrides": {"optimizer": {"lr": 0.5}}}]}).rows[1].spec
    dotted = parse_study({**ONE, "variants": [{"key": "a", "overrides": {"optimizer.lr": 0.5}}]}).rows[1].spec
    preset = {"title": "t", "variants": [{"key": "a", "overrides": {"preset": "lab-report/6e", "epochs": 3}}]}
    assert nested.digest() == dotted.digest()
    assert parse_study(preset).rows[0].spec.epochs == 3
    assert parse_study(preset).rows[0].spec.optimizer.lr == 0.1


def test_a_grid_combines_all_values_the_last_field_changing_first() -> None:
    body = {"title": "grid", "base": "baseline", "grid": {"optimizer.lr": [0.1, 0.01], "batch_size": [16, 32]}}
    rows = parse_study(body).rows
    assert [row.key for row in rows][:2] == ["optimizer.lr=0.1,batch_size=16", "optimizer.lr=0.1,batch_size=32"]
    assert [row.baseline for row in rows].index(None) == 3  # 0.01 and 32 are the base's own


def test_every_mistake_is_named_with_its_place_at_once() -> None:
    found = problems(
        {
            "title": "t",
            "base": {"model": "baseline"},
            "baseline": "wida",
            "variants": [
                {"key": "a", "overrides": {"model": "widee"}},
                {"key": "a", "overrides": {"optimizer": {"lr": -1}, "epochs": 0}},
                {"key": "b", "overrides": {"optimizer.lr": "fast"}},
            ],
        }
    )
    assert set(found) == {
        "variants[0].overrides.model.name",
        "variants[1].overrides.optimizer.lr",
        "variants[1].overrides.epochs",
        "variants[2].overrides.optimizer.lr",
        "variants[1].key",
        "baseline",
    }


def test_a_mistake_of_the_base_is_said_once_however_many_rows_have_it() -> None:
    variants = [{"key": f"k{n}", "overrides": {"batch_size": 2**n}} for n in range(1, 5)]
    assert set(problems({"title": "t", "base": {"model": "baselin"}, "variants": variants})) == {"base.model.name"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seeds": 0}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": 2, "repeat_until": {"points": 1}}, "repeat_until"),
        ({"budget": "half an hour"}, "budget"),
        ({"budget": "30m", "repeat_until": {"points": 1}}, "repeat_until"),
        ({"repeat_until": {"points": 0}}, "repeat_until.points"),
        ({"grid": {"optimizer.lr": [0.1]}}, "grid"),
        ({"variants": []}, "variants"),
        ({"sed": 3}, "sed"),
        ({"sections": [{"title": "s", "rows": ["wid"]}]}, "sections[0].rows[0]"),
        (
            {"sections": [{"title": "s", "rows": ["wide"], "published_curves": {"wid": [0.5]}}]},
            "sections[0].published_curves.wid",
        ),
        ({"variants": [{"key": "a", "when_shortened": {"batch_size": 0}}]}, "variants[0].when_shortened.batch_size"),
        ({"variants": [{"key": "a", "overrides": {"optimizer": "sgd", "optimizer.lr": 1}}]}, "optimizer.lr"),
        ({"variants": [{"key": "a", "overrides": {"optimizer": {"lr": 1}, "optimizer.lr": 0.1}}]}, "optimizer.lr"),
        ({"variants": [{"key": "a", "overrides": {"optimizer.lr": 0.1, "optimizer": {"lr": 1}}}]}, "optimizer"),
        ({"variants": [{"key": "a", "baseline": "a", "overrides": {"model": "wide"}}]}, "variants[0].baseline"),
        ({"variants": [], "grid": {"epochs": list(range(1, 202))}}, "grid"),
        ({"variants": [], "grid": {"epochs": list(range(1, 30)), "seed": list(range(30))}}, "grid"),
        ({"variants": [], "grid": {"epochs": [3, 4, 3]}}, "grid.epochs"),
        ({"base": "baselin"}, "base"),
    ],
)
def test_what_a_study_cannot_have_is_refused(change: dict[str, Any], field: str) -> None:
    assert any(place.endswith(field) for place in problems({**ONE, **change})), problems({**ONE, **change})


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"seeds": "3"}, "seeds", 'must be how many seeds (3) or which ([0, 7]), not "3"'),
        ({"seeds": 2.5}, "seeds", "must be how many seeds (3) or which ([0, 7]), not 2.5"),
        ({"seeds": [0, -1]}, "seeds[1]", "must be at least 0, not -1"),
        ({"repeat_until": {"points": 0}}, "repeat_until.points", "must be greater than 0, not 0"),
        ({"baseline": ""}, "baseline", 'needs at least 1 character, not ""'),
        ({"variants": [{"key": str(n)} for n in range(201)]}, "variants", "may have at most 200 entries, not 201"),
        ({"base": "baselin"}, "base", 'there is no network and no preset "baselin"'),
        (
            {"repeat_until": {"points": 1, "point": 2}},
            "repeat_until.point",
            "unknown key 'point'; did you mean 'points'?",
        ),
        (
            {"epochs": 2},
            "epochs",
            "is a field of an experiment; write base: {epochs: 2}, or POST the spec to /api/v1/experiments",
        ),
        (
            {"variants": [{"key": "a", "overrides": {"lr": 1}, "published": 0.7}]},
            "variants[0].published",
            "must be an object with keys, not 0.7; write {val_accuracy: 0.72}",
        ),
    ],
)
def test_a_mistake_is_told_once_in_the_words_of_the_field(change: dict[str, Any], field: str, message: str) -> None:
    assert problems({**ONE, **change}) == {field: message}


def test_the_title_of_the_error_says_that_it_is_a_study() -> None:
    search = {"space": {"epochs": {"int": [0, 3]}}}
    for body in ({}, {**ONE, "base": "baselin"}, {"base": "baseline", "search": search}):
        with pytest.raises(SpecError) as raised:
            parse_study(body)
        assert raised.value.title == "The study cannot be run as it is written"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("2b", None),
        ("6a", None),
        ("1", None),
        ("3A", "3a"),
        ("3-a", "3a"),
        ("wihtout-norm", "without-norm"),
        ("lr-0.2", None),
        ("zzz", None),
    ],
)
def test_another_row_is_advised_only_where_its_key_is_alike(key: str, meant: str | None) -> None:
    rows = [
        {"key": each, "overrides": {"batch_size": number}}
        for number, each in enumerate(["2", "3a", "without-norm", "lr-0.1"], start=1)
    ]
    for change in ({"baseline": key}, {"sections": [{"title": "s", "rows": [key]}]}):
        with pytest.raises(SpecError) as raised:
            parse_study({"base": "baseline", "variants": rows, **change})
        [entry] = raised.value.errors
        assert entry.get("nearest") == meant
        assert entry["message"].startswith(f"there is no row '{key}'; the rows are 2, 3a, ")


def test_a_row_of_the_key_base_is_the_baseline() -> None:
    body = {**ONE, "variants": [*ONE["variants"], {"key": "base", "overrides": {"batch_size": 8}}]}
    assert [(row.key, row.baseline) for row in parse_study(body).rows] == [("wide", "base"), ("base", None)]


@pytest.mark.parametrize("order", [1, -1])
def test_an_override_of_a_part_and_one_of_its_fields_add_up_in_any_order(order: int) -> None:
    overrides = dict([("optimizer", {"momentum": 0.5}), ("optimizer.lr", 0.25)][::order])
    optimizer = parse_study({**ONE, "variants": [{"key": "a", "overrides": overrides}]}).rows[1].spec.optimizer
    assert (optimizer.lr, optimizer.momentum) == (0.25, 0.5)  # type: ignore[union-attr]


def test_rows_of_a_grid_have_keys_of_their_own_whatever_their_values_are_written_with() -> None:
    names = ["x" * 200, "x" * 199 + "y", "\u00e4", "\u00f6", "a b", "a_b"]
    keys = [row.key for row in parse_study({"base": "baseline", "grid": {"name": names}}).rows]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "body", [None, 3, [], "lab", {"preset": "lab-rapport"}, {"preset": 3}, {"base": 1, "variants": 2}]
)
def test_what_is_no_study_is_refused(body: Any) -> None:
    assert problems(body)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("90s", 90),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2 min", 120),
        ("1d", 86_400),
        ("1 day 2 hours", 93_600),
        ("30 Minutes", 1800),
        ("30d", 30 * 86_400),
        ("31d", None),
        ("5", None),
        ("-5m", None),
        ("1m1h", None),
        ("", None),
        ("m", None),
        ("0s", None),
    ],
)
def test_durations_are_read(text: str, seconds: float | None) -> None:
    assert read_duration(text) == seconds


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_none(text: str) -> None:
    found = read_duration(text)
    assert found is None or found >= 1


def test_seeds_change_the_seed_and_leave_the_split() -> None:
    spec = parse_study({**ONE, "seeds": [5, 9]}).spec
    assert [spec.seed_of(0, repeat) for repeat in range(2)] == [5, 9]
    assert [parse_study({**ONE, "seeds": 3}).spec.seed_of(7, repeat) for repeat in range(3)] == [7, 8, 9]


@pytest.mark.parametrize("name", sorted(study_presets()))
def test_studies_of_the_package_are_complete_and_read_back(name: str) -> None:
    parsed = parse_study({"preset": name})
    stored = parsed.spec.model_dump(mode="json", exclude_unset=True)
    assert load_study(stored) == parsed.spec
    shown = {key for section in parsed.spec.sections for key in section.rows}
    assert shown == {row.key for row in parsed.rows}


def test_the_lab_report_has_every_row_with_what_was_published() -> None:
    rows = {row.key: row for row in parse_study({"preset": "lab-report"}).rows}
    for key in ("1", "2", "2b", "3a", "3b", "3c", "3d", "6a", "6b", "6c", "6d", "6e", "bonus"):
        assert rows[key].published is not None
    as_run = rows["5-as-run"].spec
    assert (as_run.clip_grad_norm, as_run.optimizer.lr, as_run.model.input_size) == (None, 0.01, 32)
    assert as_run.model.keep_head  # type: ignore[attr-defined]


def test_changes_replace_what_cannot_stand_beside_them() -> None:
    body = {**ONE, "seeds": 3}
    assert parse_study(cloned(body, {"grid": {"batch_size": [16]}})).spec.variants == ()
    assert parse_study(cloned(body, {"repeat_until": {"points": 1}})).spec.repeat_until is not None
    assert parse_study(cloned({**body, "budget": "5m"}, {"budget": None})).spec.budget is None
