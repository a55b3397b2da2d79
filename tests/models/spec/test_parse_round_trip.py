"""Any valid spec can be stored, read back and POSTed again; anything else is refused."""

import json
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import SpecError
from models.spec.experiment import ExperimentSpec
from models.spec.parse import load_model, load_spec, parse_spec
from tests.models.spec.strategies import JSON, SPECS, keys_of

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@SLOW
@given(SPECS)
def test_a_valid_spec_is_complete_and_comes_back_the_same(body: dict[str, Any]) -> None:
    spec = parse_spec(body)
    stored = json.loads(json.dumps(spec.as_json()))
    assert stored.keys() == ExperimentSpec.model_fields.keys()
    for again in (load_spec(stored), parse_spec(stored)):
        assert again == spec
        assert again.digest() == spec.digest()
        assert again.as_json() == stored
    assert load_model(stored["model"]) == spec.model


@SLOW
@given(SPECS, st.text(max_size=20).filter(lambda text: text.isprintable()), st.lists(st.just("tag"), max_size=2))
def test_the_digest_leaves_out_what_does_not_decide_the_result(
    body: dict[str, Any], name: str, tags: list[str]
) -> None:
    spec = parse_spec(body)
    assert parse_spec({**spec.as_json(), "name": name, "tags": tags}).digest() == spec.digest()
    assert parse_spec({**spec.as_json(), "seed": (spec.seed + 1) % 2**31}).digest() != spec.digest()


def errors_of(body: Any) -> list[dict[str, Any]]:
    """What a body is refused with; nothing if it is a spec."""
    try:
        parse_spec(body)
    except SpecError as error:
        return error.errors or [{}]
    return []


def refused_or_read(body: Any) -> None:
    """Anything may be refused; nothing may fail otherwise, and what is refused is described."""
    errors = errors_of(body)
    assert all(entry["field"] and entry["message"] for entry in errors)
    json.dumps(errors, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_arbitrary_json_is_refused_as_a_spec_and_nothing_else(body: Any) -> None:
    refused_or_read(body)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*keys_of(), "preset", "learning_rate", "wd", "scheduler"]), JSON, max_size=6))
def test_json_under_a_specs_own_keys_is_refused_as_a_spec_and_nothing_else(body: dict[str, Any]) -> None:
    refused_or_read({"model": "baseline", **body})
    refused_or_read(body)


@SLOW
@given(SPECS, st.data())
def test_a_valid_spec_with_one_value_exchanged_is_read_or_refused(body: dict[str, Any], data: st.DataObject) -> None:
    places = [(body, key) for key in body]
    places += [(part, key) for part in body.values() if isinstance(part, dict) for key in part]
    home, key = data.draw(st.sampled_from(places))
    home[key] = data.draw(JSON)
    refused_or_read(body)


def nested(levels: int) -> Any:
    """Lists in lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [40, 10_000, 100_000])
def test_deep_json_is_refused(levels: int) -> None:
    assert levels < sys.getrecursionlimit() or levels >= 10_000
    for body in (nested(levels), {"model": "baseline", "tags": nested(levels)}, {"model": {"blocks": nested(levels)}}):
        with pytest.raises(SpecError, match="levels deep"):
            parse_spec(body)


def test_structures_without_end_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SpecError, match="levels deep"):
        parse_spec({"model": "baseline", "tags": loop})
    laughs: Any = ["ha"] * 9
    for _ in range(9):
        laughs = [laughs] * 9
    with pytest.raises(SpecError, match="20,000 values"):
        parse_spec({"model": "baseline", "tags": laughs})
    with pytest.raises(SpecError, match="20,000 values"):
        parse_spec({"model": "baseline", "tags": [0] * 1_000_000})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (json.loads("1e309"), "finite"),
        (10**400, "digits"),
        (10**5000, "digits"),
        ({1: 2}, "keys are text"),
        ({"\ud800": 2}, "Unicode"),
        ("\ud800", "Unicode"),
        (b"bytes", "bytes"),
        ({1, 2}, "set"),
    ],
    ids=range(10),
)
def test_what_json_cannot_carry_is_refused_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        parse_spec({"model": "baseline", "dataset": {"val_fraction": value}})
    assert caught.value.errors[0]["field"].startswith("dataset.val_fraction")


def test_the_body_that_was_given_is_left_as_it_was() -> None:
    body = {"preset": "lab-report/6e", "learning_rate": 0.2, "optimizer": {"momentum": 0.8}}
    before = json.dumps(body)
    parse_spec(body)
    assert json.dumps(body) == before
