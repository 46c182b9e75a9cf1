"""What is read back from a run's folder: believed only if it is whole."""

import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from continual.tracking.run_folder import (
    RunFolder,
    checkpoint_position,
    data_fingerprint,
    read_summary,
    resume_point,
)
from continual.tracking.storage import StorageError


def checkpoint(task: int = 2, **changed: Any) -> dict[str, Any]:
    recorded = {
        "tasks": [{"task": t} for t in range(task)],
        "forgetting": [],
        "columns": {},
        "diverged_at": 0,
        "wall_seconds": 1.0,
    }
    state = {"params/w": torch.arange(64.0), "online/loss": torch.zeros(())}
    whole = {
        "config_hash": "0" * 16,
        "data_fingerprint": "f" * 16,
        "task": task,
        "step_in_task": 3,
        "state": state,
        "recorded": recorded,
    }
    return {**whole, **changed}


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_checkpoint(checkpoint(1))
    folder.save_checkpoint(checkpoint(2))
    newest, before = folder.load_checkpoints()
    assert (newest.content["task"], before.content["task"]) == (2, 1)
    assert torch.equal(newest.content["state"]["params/w"], torch.arange(64.0))
    assert checkpoint_position(tmp_path) == (2, 3)
    assert data_fingerprint(tmp_path) == "f" * 16
    folder.drop_checkpoints(keep_last=True)
    assert [saved.content["task"] for saved in folder.load_checkpoints()] == [2]
    folder.drop_checkpoints(keep_last=False)
    assert folder.load_checkpoints() == []
    assert checkpoint_position(tmp_path) is None


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    folder, file = RunFolder(tmp_path), tmp_path / "checkpoint.pt"
    folder.save_checkpoint(checkpoint())
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        assert folder.load_checkpoints() == [], place


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"task": 2},
        checkpoint(task=2, step_in_task="3"),
        checkpoint(state={"params/w": 3}),
        checkpoint(step_in_task=-1),
        checkpoint(recorded={"tasks": []}),
        checkpoint(recorded={**checkpoint()["recorded"], "tasks": [{"task": 0}]}),
    ],
)
def test_a_checkpoint_of_another_kind_gives_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: Any
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_checkpoint(checkpoint(1))
    (tmp_path / "checkpoint.pt").rename(tmp_path / "checkpoint.previous.pt")
    rewrite(tmp_path / "checkpoint.pt", content)
    with caplog.at_level(logging.WARNING):
        assert [saved.content["task"] for saved in folder.load_checkpoints()] == [1]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{tmp_path / 'checkpoint.pt'} is damaged (")
    assert message.endswith("): it is passed over.")


def rewrite(file: Path, content: Any) -> None:
    """A checkpoint of this content with a right checksum."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(64)
    without = buffer.getvalue()[:-64]
    file.write_bytes(without + hashlib.sha256(without).hexdigest().encode())


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rewrite(tmp_path / "checkpoint.pt", checkpoint(recorded=Attack()))
    assert RunFolder(tmp_path).load_checkpoints() == []
    assert not (tmp_path / "ran").exists()


SUMMARY = {"status": "completed", "total_average_online_accuracy": 0.5, "num_tasks": 2}


def test_a_summary_comes_back(tmp_path: Path) -> None:
    assert read_summary(tmp_path) is None
    RunFolder(tmp_path).write_summary(SUMMARY)
    # Of the time before there was a choice: it is told what its score is.
    assert read_summary(tmp_path) == SUMMARY | {
        "score": 0.5,
        "score_name": "total_average_online_accuracy",
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b"{}", b'{"status": "done"}', b"\xff\xfe", b"[" * 100_000],
)
def test_a_damaged_summary_counts_as_none_and_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert read_summary(tmp_path) is None
        assert read_summary(tmp_path) is None
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "summary.json") in message
    assert message.endswith("the run counts as unfinished.")


def test_a_summary_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    assert read_summary(tmp_path) is None


@pytest.mark.parametrize("total", ["0.5", None, [], True, float("nan")])
def test_a_score_that_is_no_number(tmp_path: Path, total: Any) -> None:
    content = json.dumps({**SUMMARY, "score": total})
    (tmp_path / "summary.json").write_text(content)
    summary = read_summary(tmp_path)
    assert summary is not None
    assert summary["score"] is None


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/run cannot be written \(Not a directory\); mend that"):
        RunFolder(tmp_path / "file" / "run")


def test_looking_at_runs_does_not_import_torch() -> None:
    code = (
        "import sys; from continual.tracking import lock, progress, run_folder, run_status, storage; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_how_steps_were_done_is_part_of_the_point_to_resume_from(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert resume_point(tmp_path) is None
    folder.save_checkpoint(checkpoint(1))
    assert resume_point(tmp_path) == (1, 3, False), "as in a checkpoint of the time before there was a choice"
    folder.save_checkpoint({**checkpoint(2), "native": True})
    assert resume_point(tmp_path) == (2, 3, True)


def test_the_point_to_resume_from_is_that_of_a_checkpoint_that_is_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_checkpoint(checkpoint(1))
    folder.save_checkpoint(checkpoint(2))
    newest = tmp_path / "checkpoint.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 3] ^= 1
    newest.write_bytes(content)
    assert resume_point(tmp_path) == (1, 3, False)
    (tmp_path / "checkpoint.previous.pt").unlink()
    assert resume_point(tmp_path) is None


def test_rows_are_on_the_disk_before_the_summary_that_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.tasks.start([])
    synced: list[str] = []

    def fsync(file: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)

    folder.tasks.add({"task": 0})
    monkeypatch.setattr(os, "fsync", fsync)
    folder.write_summary({"status": "completed"})
    assert synced == ["tasks.csv", "summary.json.tmp"]
