"""The machine: its devices, GPUs that are only pretended, and its compiler."""

import pytest
import torch

from continual.errors import ConfigError
from continual.machine import check_device_name, compiler_problem, device


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
