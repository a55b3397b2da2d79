"""A search as it is written: what each field may be, and every mistake named with its place."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import SpecError
from models.spec.rows import Parsed, cloned, load_study, parse_study
from models.spec.search import Choices, Numbers, WrongDimension, num_trials, read_dimension, space_of
from models.spec.trials import networks_of, title_of, trial_spec

LR = {"log": [1e-4, 1e-1]}


def study(space: Any, base: Any = "baseline", **search: Any) -> dict[str, Any]:
    return {"title": "search", "base": base, "search": {"space": space, **search}}


def problems(body: Any) -> dict[str, dict[str, Any]]:
    with pytest.raises(SpecError) as raised:
        parse_study(body)
    return {str(entry["field"]): dict(entry) for entry in raised.value.errors}


def parsed(space: Any, **others: Any) -> Parsed:
    return parse_study(study(space, **others))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"log": [1e-4, 0.1]}, Numbers(1e-4, 0.1, log=True)),
        ({"uniform": [0, 1]}, Numbers(0.0, 1.0)),
        ({"uniform": [0, 1], "step": 0.3}, Numbers(0.0, 0.9, step=0.3)),
        ({"int": [16, 256]}, Numbers(16, 256, whole=True)),
        ({"int": [16, 256], "log": True}, Numbers(16, 256, log=True, whole=True)),
        ({"int": [1, 10], "step": 4}, Numbers(1, 9, whole=True, step=4)),
        (["narrow", "wide"], Choices(("narrow", "wide"))),
        ({"choice": [1, True, 1.5, None, {"name": "adam"}]}, Choices((1, True, 1.5, None, {"name": "adam"}))),
    ],
)
def test_a_field_is_a_range_or_a_list(written: Any, read: Any) -> None:
    assert read_dimension(written) == read


@pytest.mark.parametrize(
    ("written", "words", "nearest"),
    [
        (3, "must be a list of values", None),
        ("0.1 to 1", "must be a list of values", None),
        ({}, "must be a list of values", None),
        ({"logg": [1, 2]}, "did you mean 'log'", {"log": [1, 2]}),
        ({"log": [0, 1]}, "above 0", None),
        ({"log": [0.1, 0.001]}, "low below high", {"log": [0.001, 0.1]}),
        ({"uniform": [1, 1]}, "set it in base", None),
        ({"uniform": [1]}, "must be two numbers", None),
        ({"uniform": ["a", "b"]}, "must be two numbers", None),
        ({"uniform": [True, False]}, "must be two numbers", None),
        ({"uniform": [0, 1], "step": 0}, "step must be a number above 0", None),
        ({"uniform": [0, 1], "step": 2}, "more than the range", None),
        ({"uniform": [0, 1], "step": 1e-9}, "more than 10,000 values", None),
        ({"uniform": [0, 1], "stepp": 2}, "unknown key 'stepp'", {"uniform": [0, 1]}),
        ({"log": [1, 2], "step": 1}, "unknown key 'step'", {"log": [1, 2]}),
        ({"int": [1.5, 3]}, "two whole numbers", {"int": [2, 3]}),
        ({"int": [1, 3], "step": 0.5}, "whole number above 0", None),
        ({"int": [1, 30], "log": True, "step": 2}, "leave one of them out", None),
        ({"int": [1, 30], "log": "yes"}, "must be true or false", None),
        ({"int": [1, 30], "log": [1, 30]}, "has log and int", {"int": [1, 30], "log": True}),
        ([], "1 to 100 values", None),
        ([1, 2, 1], "has 1 twice", [1, 2]),
        ({"choice": "narrow"}, "must be a list of values", {"choice": ["narrow"]}),
    ],
)
def test_what_a_field_cannot_be_is_refused_with_the_nearest_form(written: Any, words: str, nearest: Any) -> None:
    with pytest.raises(WrongDimension) as raised:
        read_dimension(written)
    assert words in raised.value.message
    assert raised.value.nearest == nearest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["log", "uniform", "int", "choice", "step", "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(JSON)
def test_whatever_is_written_is_read_or_refused(written: Any) -> None:
    try:
        dimension = read_dimension(written)
    except WrongDimension:
        return
    assert isinstance(dimension, Choices) or dimension.low < dimension.high


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e6), st.floats(0, 1), st.booleans())
def test_a_drawn_number_is_short_and_within_the_range(low: float, factor: float, part: float, log: bool) -> None:
    kind = "log" if log else "uniform"
    dimension = read_dimension({kind: [low, low * factor]})
    assert isinstance(dimension, Numbers)
    value = dimension.tidied(low + part * (dimension.high - low))
    assert low <= value <= dimension.high
    assert factor < 1.2 or value in (low, dimension.high) or float(f"{value:.4g}") == value


def test_a_narrow_range_has_enough_values() -> None:
    dimension = read_dimension({"uniform": [0.98, 0.981]})
    assert isinstance(dimension, Numbers)
    assert len({dimension.tidied(0.98 + n / 1e6) for n in range(1001)}) > 500


@given(st.integers(-50, 50), st.integers(1, 200), st.integers(1, 20))
def test_a_number_with_steps_is_on_one_of_them(low: int, width: int, step: int) -> None:
    if step > width:
        return
    dimension = read_dimension({"uniform": [low / 10, (low + width) / 10], "step": step / 10})
    assert isinstance(dimension, Numbers)
    assert dimension.num_values == width // step + 1
    assert round(dimension.high * 10, 6) == low + width // step * step
    assert dimension.tidied(dimension.high) == dimension.high


def test_any_field_of_the_spec_may_be_searched_by_its_dotted_path() -> None:
    space = {
        "lr": LR,
        "model": ["narrow", {"name": "cnn", "blocks": [{"convs": [{"channels": 4}]}]}],
        "optimizer.nesterov": [True, False],
        "augmentation.color_jitter.hue": {"uniform": [0, 0.5]},
        "lr_scheduler": ["constant", {"name": "cosine"}],
        "batch_size": {"int": [16, 128], "log": True},
        "early_stopping.patience": [3, 5],
    }
    found = parsed(space)
    assert found.rows == ()
    networks = [network.spec.model.name for network in networks_of(found.points)]
    assert networks == ["cnn", "cnn", "cnn"]  # the base's own, narrow, and the third
    spec = trial_spec(found.spec, {"lr": 0.02, "model": "narrow", "batch_size": 64, "early_stopping.patience": 5})
    assert (spec.optimizer.lr, spec.batch_size) == (0.02, 64)
    assert spec.early_stopping is not None
    assert spec.early_stopping.patience == 5


def test_an_entry_of_a_list_may_be_searched() -> None:
    found = parsed({"model.blocks.0.convs.0.channels": {"int": [8, 32]}})
    channels = {point.spec.as_json()["model"]["blocks"][0]["convs"][0]["channels"] for point in found.points}
    assert {8, 32} <= channels
    assert "is not an entry of a list" in problems(study({"model.blocks.99.convs.0.channels": [8]}))[
        "search.space.model.blocks.99.convs.0.channels"]["message"]  # fmt: skip


@pytest.mark.parametrize(
    ("space", "field", "words", "nearest"),
    [
        ({"optimizer.lrr": LR}, "optimizer.lrr", "did you mean 'lr'", "lr"),
        ({"optimiser.lr": LR}, "optimiser.lr", "optimizer", "optimizer"),
        ({"optimizer.lr": {"log": [0.1, 1000]}}, "optimizer.lr", "at most 100", {"log": [0.1, 100]}),
        ({"optimizer.momentum": {"uniform": [-1, 0.9]}}, "optimizer.momentum", "at least 0", {"uniform": [0, 0.9]}),
        ({"optimizer.lr": ["fast", 0.1]}, "optimizer.lr", "must be a number", None),
        ({"model": ["narrow", "widee"]}, "model", "there is no network", ["narrow", "wide"]),
        ({"batch_size": {"log": [16, 256]}}, "batch_size", "{int: [low, high]}", {"int": [16, 256], "log": True}),
        ({"batch_size": {"uniform": [16, 256]}}, "batch_size", "{int: [low, high]}", {"int": [16, 256]}),
        ({"epochs": {"int": [0, 5]}}, "epochs", "at least 1", {"int": [1, 5]}),
        ({"optimizer": ["sgd", "adamm"]}, "optimizer", "there is no optimizer", ["sgd", "adam"]),
        ({"seed": {"int": [0, 9]}}, "seed", "best of several seeds is luck", None),
        ({"dataset.val_fraction": {"uniform": [0.1, 0.3]}}, "dataset.val_fraction", "same images", None),
        ({"dataset": ["cifar10", "fashion_mnist"]}, "dataset", "trials are compared on", None),
        ({"name": ["a", "b"]}, "name", "does not change", None),
        ({"optimizer": ["sgd"], "optimizer.lr": LR}, "optimizer.lr", "is a part of optimizer", None),
    ],
)
def test_a_field_or_value_that_a_spec_refuses_is_named_with_the_space(
    space: Any, field: str, words: str, nearest: Any
) -> None:
    entry = problems(study(space))[f"search.space.{field}"]
    assert words in entry["message"]
    if nearest is not None:
        assert entry["nearest"] == nearest


def test_values_that_cannot_be_combined_are_refused_with_the_combination() -> None:
    found = problems(study({"optimizer.name": ["sgd", "adam"], "optimizer.momentum": {"uniform": [0.1, 0.9]}}))
    [(field, entry)] = found.items()
    assert field == "search.space.optimizer.momentum"
    assert "adam has no 'momentum'" in entry["message"]
    assert "(with name adam, momentum 0.1)" in entry["message"]


def test_all_mistakes_are_said_at_once_and_those_of_the_base_as_the_base_s() -> None:
    found = problems(study({"optimizer.lr": {"log": [1, 0.1]}, "model": [], "batch_size": 3}))
    assert set(found) == {"search.space.optimizer.lr", "search.space.model", "search.space.batch_size"}
    assert set(problems(study({"optimizer.lr": LR}, base={"model": "baselin"}))) == {"base.model.name"}


def test_a_network_may_come_from_the_space_alone() -> None:
    body = {**study({"model": ["narrow", "wide"]}), "base": {"epochs": 2}}
    assert len(networks_of(parse_study(body).points)) == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"search": {"space": {}}}, "search.space"),
        ({"search": {}}, "search.space"),
        ({"search": {"space": {"optimizer.lr": LR}, "trials": 0}}, "search.trials"),
        ({"search": {"space": {"optimizer.lr": LR}, "trials": 1000}}, "search.trials"),
        ({"search": {"space": {"optimizer.lr": LR}, "trails": 10}}, "search.trails"),
        ({"search": {"space": {"optimizer.lr": LR}, "sampler": "bayes"}}, "search.sampler"),
        ({"search": {"space": {"optimizer.lr": LR}, "pruner": "halving"}}, "search.pruner"),
        ({"search": {"space": {"optimizer.lr": LR}, "seed": -1}}, "search.seed"),
        ({"search": {"space": {"optimizer.lr": LR}, "sampler": "grid"}}, "search.space.optimizer.lr"),
        ({"variants": [{"key": "a"}]}, "search"),
        ({"grid": {"batch_size": [16]}}, "search"),
        ({"seeds": 3}, "seeds"),
        ({"repeat_until": {"points": 1}}, "repeat_until"),
        ({"baseline": "base"}, "baseline"),
        ({"robustness": True}, "robustness"),
        ({"combine": ["ensemble"]}, "combine"),
        ({"sections": [{"title": "s", "rows": ["t1"]}]}, "sections"),
    ],
)
def test_what_a_search_cannot_have_is_refused(change: dict[str, Any], field: str) -> None:
    assert field in problems({**study({"optimizer.lr": LR}), **change})


def test_a_sampler_that_there_is_not_is_refused_with_the_nearest() -> None:
    entry = problems(study({"optimizer.lr": LR}, sampler="gridd"))["search.sampler"]
    assert entry["nearest"] == "grid"


def test_a_grid_runs_all_of_its_combinations_unless_fewer_trials_are_asked_for() -> None:
    space = {"optimizer.lr": [0.1, 0.01], "batch_size": {"int": [16, 64], "step": 16}}
    assert num_trials(parsed(space, sampler="grid").spec.search) == 8  # type: ignore[arg-type]
    assert num_trials(parsed(space, sampler="grid", trials=5).spec.search) == 5  # type: ignore[arg-type]
    assert num_trials(parsed(space).spec.search) == 8  # type: ignore[arg-type] # no more than differ
    many = {"optimizer.lr": {"uniform": [0.01, 0.1], "step": 0.001}, "batch_size": [8, 16, 32]}
    assert "273 combinations" in problems(study(many, sampler="grid"))["search.space"]["message"]
    assert num_trials(parsed(many, sampler="grid", trials=20).spec.search) == 20  # type: ignore[arg-type]


def test_a_search_is_stored_as_it_was_sent_and_read_back() -> None:
    spec = parsed({"optimizer.lr": LR, "model": ["narrow", "wide"]}, trials=5, pruner="asha").spec
    stored = spec.model_dump(mode="json", exclude_unset=True)
    assert stored["search"] == {
        "space": {"optimizer.lr": LR, "model": ["narrow", "wide"]},
        "trials": 5,
        "pruner": "asha",
    }
    assert load_study(stored) == spec
    assert list(space_of(load_study(stored).search)) == ["optimizer.lr", "model"]  # type: ignore[arg-type]


def test_a_clone_may_turn_a_search_into_variants_and_back() -> None:
    body = study({"optimizer.lr": LR})
    variants = cloned(body, {"variants": [{"key": "wide", "overrides": {"model": "wide"}}]})
    assert [row.key for row in parse_study(variants).rows] == ["base", "wide"]
    assert parse_study(cloned(variants, {"search": body["search"]})).spec.search is not None


def test_a_trial_is_titled_by_its_values() -> None:
    assert title_of({"optimizer.lr": 0.01234, "model": {"name": "cnn", "blocks": []}}) == "lr 0.01234, model cnn"
    assert title_of({"optimizer.name": "sgd", "model.name": "cnn"}) == "optimizer.name sgd, model.name cnn"
