"""The house order: data goes one way, and each room imports only rooms above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).parent.parent / "lpcvc_zoo"
# Top to bottom. A folder is one room; within it, imports are free but acyclic by Python's own rules.
ROOMS = (
    "errors files plugins preprocess contract data entry weights ingraph model fuse backbones registry "
    "sessions exporting targets retrieval training bench submission cli"
).split()


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "lpcvc_zoo" and len(parts) > 1 else None


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a file imports when it is loaded or run, type-checking imports aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            typing_only.update(ast.walk(node))
    rooms: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "lpcvc_zoo":
                names = [f"lpcvc_zoo.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {room for name in names if (room := room_of(name))}
    return rooms


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in ROOMS, f"{own} has no place in the house order yet"
    below = {room for room in imported_rooms(path) if ROOMS.index(room) > ROOMS.index(own)}
    assert not below, f"{path.relative_to(PACKAGE)} imports rooms below its own: {sorted(below)}"


@pytest.mark.parametrize(
    "statement",
    [
        "import lpcvc_zoo",
        "from lpcvc_zoo import list_models; list_models()",
        "import lpcvc_zoo.exporting.cache",  # whose keys a sweep plans with
    ],
)
def test_looking_at_the_zoo_imports_no_heavy_library(statement: str) -> None:
    heavy = "{'torch', 'timm', 'open_clip', 'transformers', 'onnxruntime', 'matplotlib', 'plotly'}"
    code = f"{statement}\nimport sys\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves_and_no_room_hides_one() -> None:
    import lpcvc_zoo

    for name in lpcvc_zoo.__all__:
        assert not isinstance(getattr(lpcvc_zoo, name), ModuleType)
    assert not set(lpcvc_zoo.__all__) & {path.stem for path in PACKAGE.iterdir()}
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        _ = lpcvc_zoo.bild
