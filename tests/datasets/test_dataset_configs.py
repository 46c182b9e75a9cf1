import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

from tests.datasets.writers import (
    random_arrays,
    write_cifar10,
    write_cifar100,
    write_emnist,
    write_imagenet32,
    write_mnist,
    write_npz,
    write_svhn,
    write_tiny_imagenet,
)

FOLDER = Path(__file__).parents[2] / "conf" / "env" / "dataset"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_keys_and_defaults_are_those_of_the_loader(path):
    config = OmegaConf.load(path)
    parameters = inspect.signature(get_method(config["_target_"])).parameters
    assert set(config) - {"_target_"} == set(parameters)
    values = OmegaConf.to_container(config)
    for name, parameter in parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            assert values[name] == parameter.default
    assert values.get("data_dir", "${data_dir}") == "${data_dir}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_value_has_a_comment(path):
    first, *values = path.read_text().splitlines()
    assert first.startswith("# ")
    for line in values:
        assert len(line.partition("  # ")[2]) > 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads(tmp_path, path):
    small = random_arrays(20, 10)
    photographs = random_arrays(20, 10, shape=(3, 32, 32))
    if path.stem in ("mnist", "mnist100"):
        write_mnist(tmp_path, *small)
    elif path.stem in ("fashion_mnist", "kmnist"):
        write_mnist(tmp_path, *small, name={"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}[path.stem])
    elif path.stem == "emnist":
        write_emnist(tmp_path, *small)
    elif path.stem == "svhn":
        write_svhn(tmp_path, *photographs)
    elif path.stem == "tiny_imagenet":
        write_tiny_imagenet(tmp_path, ["n01", "n02"], train=1, test=1)
    elif path.stem == "cifar10":
        write_cifar10(tmp_path, *photographs)
    elif path.stem == "cifar100":
        write_cifar100(tmp_path, *photographs)
    elif path.stem == "imagenet32":
        write_imagenet32(tmp_path, num_classes=1)
    config = OmegaConf.create({"data_dir": str(tmp_path), "dataset": OmegaConf.load(path)})
    if path.stem == "npz":
        config.dataset.path = str(write_npz(tmp_path / "my.npz", *small))
    if path.stem == "imagenet32":
        config.dataset.num_classes = 1
    if path.stem in ("cifar10", "cifar100"):
        config.dataset.verify = False
    dataset = instantiate(config.dataset)
    assert len(dataset.x_train) == len(dataset.y_train)
    raw = instantiate(config.dataset, normalise="raw")
    assert (set(raw.scale), set(raw.shift)) == ({1.0}, {0.0})
    standard = instantiate(config.dataset, normalise="mean_std")
    assert standard.scale != dataset.scale
    assert raw.fingerprint == standard.fingerprint == dataset.fingerprint


def test_loaders_import_large_libraries_only_when_they_need_them():
    modules = ", ".join(sorted({OmegaConf.load(path)["_target_"].rpartition(".")[0] for path in CONFIGS}))
    large = ("torchvision", "sklearn", "scipy", "PIL")
    program = f"import sys, {modules}; print([m for m in {large} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
