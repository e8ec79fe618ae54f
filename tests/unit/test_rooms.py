"""The rooms of the design: imports point down, and only `sdk/_serve` knows Ray Serve."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {"cli": 5, "serve": 4, "testing": 4, "ingress": 3, "xds": 3, "wire": 2, "gen": 0, "service": 0, "errors": 0}
MODULES = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("sdk/**/*.py"), *ROOT.glob("codegen/**/*.py")))


def imported(path: Path, *, only_at_import: bool) -> Iterator[str]:
    """Yield what a module imports: everything, or what is imported together with it."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (name.name for name in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                yield from (f"{child.module}.{name.name}" for name in child.names)
            elif only_at_import and (
                isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
                or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            ):
                continue
            else:
                yield from walk(child)

    yield from walk(ast.parse((ROOT / path).read_text()))


def floor(parts: tuple[str, ...]) -> int:
    return FLOORS.get(parts[1].removesuffix(".py"), 1) if len(parts) > 1 else 1


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] == "sdk"], ids=str)
def test_imports_point_down(path: Path) -> None:
    if path.name == "__init__.py" and len(path.parts) == 2:
        return  # the public names, which are imported when they are used
    above = [
        name
        for name in imported(path, only_at_import=True)
        if name.startswith("sdk.") and floor(tuple(name.split("."))) > floor(path.parts)
    ]
    assert not above


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_serve_room_imports_ray_serve(path: Path) -> None:
    names = list(imported(path, only_at_import=False))
    types_only = (Path("sdk/deployment.py"), Path("sdk/testing/_server.py"))
    if path.parts[:2] != ("sdk", "serve") and path not in types_only:
        assert not [name for name in names if name.startswith("ray.serve")]
    if path.parts[0] == "codegen":
        assert not [name for name in names if name.split(".")[0] == "sdk"]


def test_files_stay_short() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in MODULES if path.parts[1] != "gen"}
    long = {path: length for path, length in lengths.items() if length > 430}
    assert not long
