"""What the image's build imports to compile it is there under that name."""

import re
from importlib.util import find_spec
from pathlib import Path

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def test_every_module_that_the_build_imports_exists() -> None:
    named = re.findall(r"python -c 'import ([^']+)'", DOCKERFILE.read_text())
    modules = [name.strip() for each in named for name in each.split(",")]
    assert len(modules) >= 4
    assert [name for name in modules if find_spec(name) is None] == []
