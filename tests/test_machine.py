"""The machine: its devices, GPUs that are only pretended, and its compiler."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from continual import machine
from continual.errors import ConfigError
from continual.machine import (
    check_device_name,
    compile_cache,
    compiler_problem,
    device,
    ensure_compile_cache,
)


@pytest.mark.parametrize(("name", "kind"), [("auto", "cpu"), ("cpu", "cpu")])
def test_devices_of_a_machine_without_a_gpu(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device(name).type == kind


@pytest.mark.parametrize(
    ("name", "found"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_devices_of_a_machine_with_two_gpus(name: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device(name) == torch.device(found)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"cuda:2 was asked for, but the last CUDA device here is cuda:1\."):
        device("cuda:2")


@pytest.mark.parametrize("name", ["cuda:128", "cuda:99999999999999999999999"])
def test_a_number_that_no_device_has(name: str) -> None:
    with pytest.raises(ConfigError, match=r"too large a number; at most cuda:127 is possible\."):
        check_device_name(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:²", ""])
def test_a_name_that_no_device_has(name: str) -> None:
    with pytest.raises(ConfigError, match=r"possible are auto, cpu, cuda and cuda:N\."):
        check_device_name(name)


def test_a_missing_compiler_is_known_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiler_problem(torch.device("cpu")) == "there is no C++ compiler 'no-such-compiler'"
    monkeypatch.setenv("CXX", "sh")
    monkeypatch.setattr(torch, "__version__", "2.12.0+cu130")
    assert compiler_problem(torch.device("cpu")) is None


def test_a_compiler_that_is_wrong_on_a_cpu_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")
    assert compiler_problem(torch.device("cpu")) == "PyTorch 2.11.0+cu130 compiles steps wrongly for a CPU"


def test_the_folder_of_compiled_code_is_in_the_one_that_pytorch_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert os.path.dirname(compile_cache()) == default_cache_dir()


def test_processors_and_versions_that_share_a_folder_share_no_compiled_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def own() -> str:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
        return compile_cache()

    here = own()
    assert here == own()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", here)  # as a worker process has it
    assert compile_cache() == here
    monkeypatch.setattr(machine.metadata, "version", lambda name: "0.0")
    of_another_version = own()
    monkeypatch.setattr(machine, "processor", lambda: "another")
    assert len({here, of_another_version, own()}) == 3


def test_a_folder_of_compiled_code_that_will_do_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "made"))
    ensure_compile_cache()
    kept = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    assert os.path.dirname(kept) == str(tmp_path / "made")
    ensure_compile_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == kept


def test_one_that_cannot_be_made_is_replaced_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/dev/null/x")
    ensure_compile_cache()
    instead = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert instead.is_dir()
    assert str(instead) == compile_cache()
    shutil.rmtree(instead.parent)
    (record,) = caplog.records
    assert re.search(r"cannot be kept in /dev/null/x/\w+ \(Not a directory\)", record.getMessage())
