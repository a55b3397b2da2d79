"""Malformed, oversized and ambiguous request bodies are refused with the place of the error."""

from collections.abc import Callable
from typing import Any

import pytest

from models.errors import InvalidRequest
from service.http.body import MAX_DEPTH, parse_json, parse_yaml


@pytest.mark.parametrize(
    ("parse", "data", "words"),
    [
        (parse_json, b"", "not valid JSON"),
        (parse_json, b'{"a": 1,}', "not valid JSON"),
        (parse_json, b"\xff\xfe", "not UTF-8"),
        (parse_json, b'{"lr": NaN}', "NaN"),
        (parse_json, b'{"lr": -Infinity}', "-Infinity"),
        (parse_json, b'{"lr": 1e309}', "beyond the range"),
        (parse_json, b'{"lr": 1, "lr": 2}', "lr: is given twice"),
        (parse_json, b'{"a": ' + b"9" * 5000 + b"}", "5,000 digits"),
        (parse_json, b'{"a": 99999999999999999999}', "beyond 64 bits"),
        (parse_json, b'{"name": "\\ud800"}', "surrogate"),
        (parse_json, b'{"\\udc00": 1}', "surrogate"),
        (parse_json, b'{"tags": ["a\\u0000b"]}', "tags.0: holds a NUL character"),
        (parse_json, b'{"a\\u0000": 1}', "body: holds a NUL character"),
        (parse_yaml, b'notes: "a\\0b"', "notes: holds a NUL character"),
        (parse_json, b"[" * 200_000, "deeper than"),
        (parse_json, b'{"a":' * 40 + b"1" + b"}" * 40, "deeper than"),
        (parse_json, b"[" + b"0," * 60_000 + b"0]", "more than 20,000 values"),
        (parse_yaml, b"a: &x [1]\nb: *x", "anchor or alias"),
        (parse_yaml, b"a: !!python/object/apply:os.system [ls]", "tag"),
        (parse_yaml, b"a: ! 1", "tag"),
        (parse_yaml, b"a: 1\na: 2", "a: is given twice"),
        (parse_yaml, b"a: .nan", "finite"),
        (parse_yaml, b"a: .inf", "finite"),
        (parse_yaml, b"a: 1e999", "finite"),
        (parse_yaml, b"[" * 5000, "deeper than"),
        (parse_yaml, b"--- 1\n--- 2", "second document"),
        (parse_yaml, b"1: 2", "which is not text"),
        (parse_yaml, b"? [a]\n: 2", "not valid YAML"),
        (parse_yaml, b"a: [1", "not valid YAML"),
        (parse_yaml, b"a: \x00", "not valid YAML"),
        (parse_yaml, b"a: " + b"9" * 5000, "5,000 digits"),
    ],
)
def test_what_is_refused(parse: Callable[[bytes], Any], data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        parse(data)
    assert caught.value.status == 422
    assert caught.value.extra["errors"][0]["field"]


def test_a_bomb_of_yaml_aliases_is_refused_before_it_unfolds() -> None:
    layers = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else '1'}]" for i in range(12))
    with pytest.raises(InvalidRequest, match="anchor or alias"):
        parse_yaml(layers.encode())


def test_yaml_reads_as_a_person_means_it() -> None:
    text = (
        b"lr: 1e-3\ntags: [no, on, 2024-01-01, 12:30]\nbig: 1_000\nzero: 010\nnone: ~\nempty:\nyes: true\nx: -1.5e+3\n"
    )
    assert parse_yaml(text) == {
        "lr": 0.001,
        "tags": ["no", "on", "2024-01-01", "12:30"],
        "big": "1_000",
        "zero": "010",
        "none": None,
        "empty": None,
        "yes": True,
        "x": -1500.0,
    }


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("2024", "2024"),
        ("2.50", "2.50"),
        ("1e-3", "1e-3"),
        ("true", "true"),
        ("No", "No"),
        ("2024-01-01", "2024-01-01"),
        ("0x1F", "0x1F"),
        (".inf", ".inf"),
        ("9" * 150, "9" * 150),
        ('"2024"', "2024"),
        ("|\n  1\n", "1\n"),
        ("null", ""),
        ("~", ""),
        ("", ""),
    ],
)
def test_a_name_and_tags_in_yaml_are_text_as_it_was_written(written: str, name: str) -> None:
    assert parse_yaml(f"name: {written}\nseed: 2024\nmodel: {{name: 1}}".encode()) == {
        "name": name,
        "seed": 2024,
        "model": {"name": 1},
    }
    if name and "\n" not in name:
        assert parse_yaml(f"tags: [a, {written}]".encode()) == {"tags": ["a", name]}
        assert parse_yaml(f"tags:\n- {written}\n".encode()) == {"tags": [name]}


def test_tags_in_yaml_that_are_words_of_yaml_and_tags_that_are_none() -> None:
    assert parse_yaml(b"tags: [1, 2.50, yes, 2024-01-01, true, null, ~]") == {
        "tags": ["1", "2.50", "yes", "2024-01-01", "true", "null", "~"]
    }
    assert parse_yaml(b"tags:\nname:") == {"tags": [], "name": ""}
    assert parse_yaml(b"tags:\n-\n- 1") == {"tags": [None, "1"]}
    assert parse_yaml(b"tags: [[1], {a: 2}]\nname: [1]") == {"tags": [[1], {"a": 2}], "name": [1]}
    assert parse_yaml(b"tags: 5") == {"tags": 5}
    assert parse_yaml(b"[name, 1]") == ["name", 1]


def test_the_labels_of_a_study_in_yaml_are_text_as_it_was_written() -> None:
    text = """
        title: 2024
        question: 1e-3
        baseline: 0.010
        variants:
        - {key: 0.010, title: true, baseline: null, overrides: {epochs: 3}}
        - {key: yes, title: }
        sections: [{title: 1, rows: [0.010, yes]}]
    """
    assert parse_yaml(text.encode()) == {
        "title": "2024",
        "question": "1e-3",
        "baseline": "0.010",
        "variants": [
            {"key": "0.010", "title": "true", "baseline": None, "overrides": {"epochs": 3}},
            {"key": "yes", "title": None},
        ],
        "sections": [{"title": "1", "rows": ["0.010", "yes"]}],
    }


def test_json_says_itself_what_is_text() -> None:
    assert parse_json(b'{"name": 2024, "tags": [1, null]}') == {"name": 2024, "tags": [1, None]}


def test_json_and_yaml_give_the_same() -> None:
    json = b'{"model": "baseline", "optimizer": {"lr": 0.1, "nesterov": true}, "tags": ["a", "b"], "seed": 3}'
    yaml = b"model: baseline\noptimizer:\n  lr: 0.1\n  nesterov: true\ntags: [a, b]\nseed: 3\n"
    assert parse_json(json) == parse_yaml(yaml)


def test_depth_up_to_the_limit_is_read() -> None:
    depth = MAX_DEPTH - 1
    assert parse_json(b"[" * depth + b"1" + b"]" * depth)
