"""What SLURM's answers are taken to mean; the commands here are stand-ins, in test_slurm.py they are real."""

import os
from pathlib import Path

import pytest

from continual.sweep import slurm_queue


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("JobId=7 JobState=RUNNING RunTime=00:00:03 TimeLimit=00:02:00", False),
        ("JobId=7 JobState=COMPLETING RunTime=00:00:03 TimeLimit=00:02:00", True),
        ("JobId=7 JobState=COMPLETING RunTime=00:02:01 TimeLimit=00:02:00", False),
        ("JobId=7 JobState=COMPLETING RunTime=1-02:00:03 TimeLimit=1-02:00:00", False),
        ("JobId=7 JobState=COMPLETING RunTime=23:00:03 TimeLimit=1-02:00:00", True),
        ("JobId=7 JobState=COMPLETING RunTime=9-00:00:03 TimeLimit=UNLIMITED", True),
        ("slurm_load_jobs error: Invalid job id specified", False),
    ],
)
def test_a_job_that_is_being_cancelled(
    answer: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "scontrol"
    command.write_text(f'#!/bin/sh\n[ "$*" = "show job --oneliner 7" ] && echo "{answer}"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert slurm_queue.is_being_cancelled("7") is expected
