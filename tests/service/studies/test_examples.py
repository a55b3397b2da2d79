"""The specs and studies of the documentation can be sent as they stand there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.data.catalogue import get_dataset
from models.spec.parse import parse_spec
from models.spec.rows import parse_study
from service.http.body import parse_yaml

ROOT = Path(__file__).parents[3]
YAML = re.compile(r"```yaml\n(.*?)```|<<'YAML'\n(.*?)\nYAML", re.DOTALL)


def examples() -> Iterator[tuple[str, str]]:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, found in enumerate(YAML.finditer(path.read_text()), start=1):
            yield f"{path.name} {number}", found[1] or found[2]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in examples()])
def test_an_example_of_the_documentation_can_be_sent(text: str) -> None:
    body = parse_yaml(text.encode())
    parsed = [row.spec for row in parse_study(body).rows] if "base" in body else [parse_spec(body)]
    assert all(get_dataset(spec.dataset.name) for spec in parsed)
