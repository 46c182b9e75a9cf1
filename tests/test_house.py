"""The house stands as it is drawn: who may import whom, and what a room keeps to itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "continual"
# Each room stands on those before it and on no other. `__init__` hands on what the last ones offer.
ROOMS = (
    *("errors", "tree", "random", "schema", "identity", "machine"),
    *("eigenvalues", "ranks", "metrics", "scoring"),
    *("datasets", "networks", "losses", "envs", "optimizers", "agents", "config", "learner"),
    *("cpu", "stepping", "population", "building", "provenance", "tracking", "fitting", "measuring"),
    *("pausing", "resuming", "training", "sweep", "report", "cli", "api", "reproduce"),
)


def imports() -> Iterator[tuple[Path, str, str]]:
    """Each import of the package's files, wherever it stands: the file, the module and the name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    yield path, node.module, alias.name
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield path, alias.name, ""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_is_drawn() -> None:
    found = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert found <= set(ROOMS), found - set(ROOMS)


def test_imports_never_point_up() -> None:
    for path, module, name in imports():
        parts = [*module.split("."), name]
        if parts[0] != "continual" or room_of(path) == "__init__" or parts[1] in ("", "__version__"):
            continue
        here, there = room_of(path), parts[1]
        assert ROOMS.index(there) <= ROOMS.index(here), f"{path} imports {module}"


def test_nothing_private_is_imported_from_another_room() -> None:
    for path, module, name in imports():
        if module.startswith("continual.") and module.split(".")[1] != room_of(path):
            private = [
                part for part in (*module.split("."), name) if part.startswith("_") and part[1:2] != "_"
            ]
            assert not private, f"{path} imports {name} from {module}"


def test_hydra_has_one_room() -> None:
    users = {room_of(path) for path, module, _ in imports() if module.split(".")[0] == "hydra"}
    assert users == {"cli"}


@pytest.mark.parametrize(("file", "lines"), [("training.py", 150)])
def test_what_is_read_from_top_to_bottom_is_short(file: str, lines: int) -> None:
    assert len((PACKAGE / file).read_text(encoding="utf-8").splitlines()) <= lines
