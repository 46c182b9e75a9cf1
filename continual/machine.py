"""The machine that trains: its device, its cores, its GPUs and its compiler; torch only when asked."""

import getpass
import hashlib
import logging
import os
import platform
import re
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from continual.errors import ConfigError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# Code that earlier versions of PyTorch make for a CPU may overwrite what it is still to read
# (github.com/pytorch/pytorch/issues/177631): with 2.11, continual backprop with Adam learnt something else.
FIRST_RIGHT_ON_CPU = "2.12"
# The largest index that torch.device takes.
_LAST_INDEX = 127


def check_device_name(name: str) -> None:
    """ConfigError if this is no device's name: `auto`, `cpu`, `cuda` or `cuda:N`."""
    found = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", name, re.ASCII)
    if not found:
        raise ConfigError(f"device: {name!r} is unknown; possible are auto, cpu, cuda and cuda:N.")
    index = found.group(1)
    if index and (len(index) > 3 or int(index) > _LAST_INDEX):
        raise ConfigError(f"device: {name} has too large a number; at most cuda:{_LAST_INDEX} is possible.")


def device(name: str) -> "torch.device":
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`; ConfigError if there is none such here."""
    import torch

    check_device_name(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(name)
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise ConfigError(
                f"device: {name} was asked for, but there is no CUDA device here; use device=cpu."
            )
        if (found.index or 0) >= count:
            raise ConfigError(
                f"device: {name} was asked for, but the last CUDA device here is cuda:{count - 1}."
            )
    return found


def cores() -> int:
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus(device_name: str) -> list[str]:
    """The GPUs to share out among workers, as values of CUDA_VISIBLE_DEVICES.

    None on a CPU, and none if the device names its GPU: it does so by its place among all that are visible.
    """
    where = device(device_name)
    if where.type != "cuda" or where.index is not None:
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def ensure_compile_cache() -> None:
    """Let PyTorch keep compiled code in a folder that can be written; says so where that is another one.

    PyTorch makes the folder as soon as a part of it is imported that even uncompiled steps need.
    """
    folder = compile_cache()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        reason = error.strerror
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="continual-compiled-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = compile_cache()
    os.makedirs(compile_cache())
    log.warning(
        "compiled code cannot be kept in %s (%s), and is lost when this process ends; "
        "TORCHINDUCTOR_CACHE_DIR names another folder.",
        folder,
        reason,
    )


def compile_cache() -> str:
    """The folder in which compiled code is kept, for processors like this one and this version of PyTorch.

    PyTorch itself keeps code by its source and the compiler's flags alone: in a home folder that machines
    share, one would run what was made for another. What TORCHINDUCTOR_CACHE_DIR names is shared out so.
    """
    named = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if not named:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a user whom the machine has no name for, as in a container
            user = f"uid_{os.getuid()}"
        named = os.path.join(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))
    own = hashlib.sha256(f"{processor()} {metadata.version('torch')}".encode()).hexdigest()[:8]
    return named if os.path.basename(named) == own else os.path.join(named, own)


def processor() -> str:
    """What distinguishes processors for which the compiler makes different code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")
    return "\n".join(dict.fromkeys(line for line in lines if line.split("\t")[0].rstrip() in wanted))


def remove_damaged_code(error: BaseException) -> bool:
    """Remove the compiled code that cannot be loaded, as this error says; whether there was any.

    A process that is killed while the compiler writes a file leaves a part of it, which every later process
    would find in the cache and fail to load.
    """
    found = re.search(r"(/\S+\.so): (?:file too short|invalid ELF header|cannot read file data)", str(error))
    if found is None or not Path(found[1]).is_relative_to(compile_cache()):
        return False
    try:
        os.unlink(found[1])
    except OSError:
        return False
    log.info("%s was left damaged by a process that was killed, and is compiled again", found[1])
    return True


def compiler_problem(device: "torch.device") -> str | None:
    """Why nothing can be compiled for this device here, in a few words, or None if it can."""
    import torch
    from torch.torch_version import TorchVersion

    if device.type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return "Triton is not installed"
        return None
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        return f"there is no C++ compiler '{compiler}'"
    if TorchVersion(torch.__version__) < FIRST_RIGHT_ON_CPU:
        return f"PyTorch {torch.__version__} compiles steps wrongly for a CPU"
    return None
