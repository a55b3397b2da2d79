"""What packages hand to each other has a type: no public name takes or gives a dict[str, Any] outside these folders."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = {
    ROOT / "worker" / "training",  # state dicts, as PyTorch has them, which only its own modules read
    ROOT / "service" / "cli",  # the JSON of a lab, which may be of another version
    ROOT / "service" / "web",  # the variables of templates
}


def untyped(body: list[ast.stmt], name: str) -> Iterator[str]:
    """The public functions, methods and fields that mention dict[str, Any]."""
    for node in body:
        match node:
            case ast.ClassDef(name=inner) if not inner.startswith("_"):
                yield from untyped(node.body, f"{name}.{inner}")
            case ast.FunctionDef(name=inner) | ast.AsyncFunctionDef(name=inner) if not inner.startswith("_"):
                given = [argument.annotation for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
                if any("dict[str, Any]" in ast.unparse(one) for one in [*given, node.returns] if one is not None):
                    yield f"{name}.{inner}"
            case ast.AnnAssign(target=ast.Name(id=inner)) if not inner.startswith("_"):
                if "dict[str, Any]" in ast.unparse(node.annotation):
                    yield f"{name}.{inner}"


def test_no_public_name_outside_the_folders_above_has_the_type_of_any_dictionary() -> None:
    found = [
        name
        for package in ("models", "service", "worker")
        for path in sorted((ROOT / package).rglob("*.py"))
        if not ALLOWED & {*path.parents} and "dict[str, Any]" in (text := path.read_text())
        for name in untyped(ast.parse(text).body, str(path.relative_to(ROOT)))
    ]
    assert found == []
