import json
from dataclasses import asdict
from pathlib import Path

import pytest

from continual import provenance
from continual.config import Replica
from continual.errors import UserError
from continual.sweep.manifest import Entry, Folders, Manifest


def manifest(sweep: Path, **hashes: str) -> Manifest:
    """A manifest of runs in folders `f<name>` with these hashes; the words for each are its hash."""
    made = Manifest.begin(sweep)
    made.runs = {name[1:]: Entry(i, [h], h) for i, (name, h) in enumerate(hashes.items())}
    return made


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = manifest(tmp_path, f0="a", f1="b")
    written.launcher = {"_target_": "x", "workers": 2}
    written.add_submission("12_0", [Replica({}, tmp_path / "1", {}, "")])
    written.write()
    assert Manifest.read(tmp_path) == written
    assert written.submissions == {"12_0": ["1"]}
    assert written.code == asdict(provenance.code())
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "code.diff") == ["manifest.json"]


def test_there_is_none(tmp_path: Path) -> None:
    assert Manifest.read(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"version": 99})])
def test_one_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json (cannot be read|was written by another version)"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("known", "jobs", "folders"),
    [
        ({}, "ab", "01"),
        ({"f0": "a", "f1": "b"}, "ab", "01"),
        # the grid has grown at its end, its beginning and in between
        ({"f0": "a", "f1": "b"}, "abc", "012"),
        ({"f0": "a", "f1": "b"}, "cab", "201"),
        ({"f0": "a", "f1": "b"}, "acb", "021"),
        ({"f0": "a", "f1": "b"}, "cdab", "2301"),
        # it has shrunk
        ({"f0": "a", "f1": "b", "f2": "c"}, "c", "2"),
        # the number is free, even if others are not
        ({"f0": "a", "f1": "b"}, "dbc", "312"),
        # the same config twice is two runs
        ({}, "aa", "01"),
        ({"f0": "a", "f1": "a"}, "aaa", "012"),
        ({"f0": "a", "f1": "a"}, "baa", "210"),
    ],
)
def test_a_run_keeps_its_folder(tmp_path: Path, known: dict[str, str], jobs: str, folders: str) -> None:
    wanted = [tmp_path / str(i) for i in range(len(jobs))]
    asked = [Entry(i, [j], j) for i, j in enumerate(jobs)]
    assigned = Folders(tmp_path, manifest(tmp_path, **known)).assign(wanted, asked)
    assert "".join(path.name for path in assigned) == folders


def test_the_same_words_with_another_config_get_the_folder_they_had(tmp_path: Path) -> None:
    """There the difference is noticed, because an edited config is not to make a sweep grow."""
    known = manifest(tmp_path, f0="a", f1="b")
    wanted = [tmp_path / "0", tmp_path / "1"]
    assigned = Folders(tmp_path, known).assign(wanted, [Entry(0, ["a"], "new"), Entry(1, ["b"], "b")])
    assert [path.name for path in assigned] == ["0", "1"]
    assert not known.holds(assigned[0], "new")
    assert known.holds(assigned[1], "b")


def test_named_folders_stay_as_they_are(tmp_path: Path) -> None:
    wanted = [tmp_path / "seed=0", tmp_path / "seed=1"]
    assert Folders(tmp_path, None).assign(wanted, [Entry(0, [], "a"), Entry(1, [], "b")]) == wanted


def test_a_run_with_more_tasks_keeps_its_folder_and_one_with_fewer_does_not(tmp_path: Path) -> None:
    known = manifest(tmp_path)
    known.runs = {"0": Entry(0, ["n=4"], "4 tasks", "run", 4)}
    wanted = [tmp_path / "0", tmp_path / "1"]
    jobs = [Entry(0, ["n=2"], "2 tasks", "run", 2), Entry(1, ["n=8"], "8 tasks", "run", 8)]
    assigned = Folders(tmp_path, known).assign(wanted, jobs)
    assert [path.name for path in assigned] == ["1", "0"]


@pytest.mark.parametrize(
    "damage",
    [
        {"runs": None},
        {"runs": {"0": {}}},
        {"runs": {"0": {"number": "x", "overrides": [], "config_hash": "a"}}},
        {"runs": {"/etc": {"number": 0, "overrides": [], "config_hash": "a"}}},
        {"launcher": "x"},
        {"submissions": {"1": "0"}},
        {"code": {"nothing": 1}},
        {"more": 1},
    ],
)
def test_one_that_is_damaged(tmp_path: Path, damage: dict[str, object]) -> None:
    manifest(tmp_path, f0="a").write()
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: value for name, value in {**content, **damage}.items() if value is not None})
    )
    with pytest.raises(UserError, match=rf"{path} is damaged \(.*\): restore it, or choose another folder"):
        Manifest.read(tmp_path)
