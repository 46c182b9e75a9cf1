"""Small files in the real formats of the datasets, for tests to read through the real loaders.

Each writer takes images as the loader returns them, uint8 [N, C, H, W] (arrays or tensors), and
labels [N], and puts the files where the loader looks for them under `data_dir`.
"""

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def random_arrays(
    train: int,
    test: int,
    shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int = 10,
    seed: int = 0,
) -> Arrays:
    """Noise images of a shape [C, H, W], uint8, with labels 0, 1, ..., num_classes - 1, 0, 1, ...

    Returns x_train, y_train, x_test, y_test, in the order in which the writers take them.
    """
    generator = np.random.default_rng(seed)
    x_train, x_test = (generator.integers(0, 256, (count, *shape), dtype=np.uint8) for count in (train, test))
    return x_train, np.arange(train) % num_classes, x_test, np.arange(test) % num_classes


def write_idx(path: Path, array: ArrayLike, gz: bool = False) -> None:
    """An idx file of unsigned bytes: 0 0 8 ndim, the sizes as big-endian uint32, the bytes."""
    data = np.asarray(array, np.uint8)
    content = bytes([0, 0, 8, data.ndim]) + struct.pack(f">{data.ndim}I", *data.shape)
    content += data.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if gz:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
    else:
        path.write_bytes(content)


def write_mnist(
    data_dir: Path,
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_test: ArrayLike,
    y_test: ArrayLike,
    name: str = "MNIST",
    gz: bool = False,
) -> Path:
    """MNIST's four files (`name="FashionMNIST"` for Fashion-MNIST's); returns their folder.

    Images are [N, 1, H, W] of any size. mnist100 reads the same files and needs all ten digits.
    """
    raw = data_dir / name / "raw"
    for split, x, y in (("train", x_train, y_train), ("t10k", x_test, y_test)):
        write_idx(raw / f"{split}-images-idx3-ubyte", np.asarray(x)[:, 0], gz)
        write_idx(raw / f"{split}-labels-idx1-ubyte", y, gz)
    return raw


def write_emnist(
    data_dir: Path,
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_test: ArrayLike,
    y_test: ArrayLike,
    split: str = "balanced",
    gz: bool = False,
) -> Path:
    """The four files of one of EMNIST's splits, with letters counted from 1; returns their folder."""
    raw = data_dir / "EMNIST" / "raw"
    first = 1 if split == "letters" else 0
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        write_idx(raw / f"emnist-{split}-{part}-images-idx3-ubyte", np.asarray(x)[:, 0], gz)
        write_idx(raw / f"emnist-{split}-{part}-labels-idx1-ubyte", np.asarray(y) + first, gz)
    return raw


def write_cifar10(
    data_dir: Path, x_train: ArrayLike, y_train: ArrayLike, x_test: ArrayLike, y_test: ArrayLike
) -> Path:
    """CIFAR-10's files, each train file with a fifth of the images; returns their folder."""
    folder = data_dir / "cifar-10-batches-py"
    parts = zip(np.array_split(x_train, 5), np.array_split(y_train, 5), strict=True)
    for number, (x, y) in enumerate(parts, start=1):
        batch = {"labels": y, "batch_label": f"training batch {number} of 5"}
        _write_cifar(folder / f"data_batch_{number}", x, batch)
    batch = {"labels": y_test, "batch_label": "testing batch 1 of 1"}
    _write_cifar(folder / "test_batch", x_test, batch)
    _write_python2_pickle(folder / "batches.meta", {"label_names": [f"name {k}" for k in range(10)]})
    return folder


def write_cifar100(
    data_dir: Path, x_train: ArrayLike, y_train: ArrayLike, x_test: ArrayLike, y_test: ArrayLike
) -> Path:
    """CIFAR-100's two files, with the labels as fine labels; returns their folder."""
    folder = data_dir / "cifar-100-python"
    for split, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        labels = {"fine_labels": y, "coarse_labels": np.asarray(y) // 5}
        _write_cifar(folder / split, x, {**labels, "batch_label": f"{split} batch 1 of 1"})
    names = [f"name {k}" for k in range(100)]
    _write_python2_pickle(folder / "meta", {"fine_label_names": names})
    return folder


def write_imagenet32(data_dir: Path, num_classes: int = 2, seed: int = 0) -> Path:
    """Dohare et al.'s files for the classes 0..num_classes-1 (2.1 MB each); returns their folder.

    Every pixel of image i of class k is (k + i) mod 256, but for a few random ones, so that a test
    can tell where an image comes from.
    """
    folder = data_dir / "imagenet32" / "classes"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for k in range(num_classes):
        tags = ((k + np.arange(700)) % 256).astype(np.uint8)
        images = np.broadcast_to(tags[:, None, None, None], (700, 3, 32, 32)).copy()
        images[:, :, 1, :] = generator.integers(0, 256, (700, 3, 32), dtype=np.uint8)
        np.save(folder / f"{k}.npy", images)
    return folder


def write_svhn(
    data_dir: Path, x_train: ArrayLike, y_train: ArrayLike, x_test: ArrayLike, y_test: ArrayLike
) -> Path:
    """SVHN's two MATLAB files, in which images come last and a 0 is called 10; returns their folder."""
    import scipy.io

    data_dir.mkdir(parents=True, exist_ok=True)
    for split, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        labels = np.where(np.asarray(y) == 0, 10, y).astype(np.uint8)[:, None]
        content = {"X": np.asarray(x).transpose(2, 3, 1, 0), "y": labels}
        scipy.io.savemat(data_dir / f"{split}_32x32.mat", content, do_compression=True)
    return data_dir


def write_tiny_imagenet(data_dir: Path, wnids: list[str], train: int, test: int) -> Path:
    """Tiny-ImageNet's folders, with so many images a class; returns their folder.

    The left half of an image of class k has the shade 60 (k + 1), the right half is black.
    """
    from PIL import Image

    folder = data_dir / "tiny-imagenet-200"
    validation = folder / "val" / "images"
    validation.mkdir(parents=True)
    annotations = []
    for k, wnid in enumerate(wnids):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        image = Image.new("RGB", (64, 64))
        image.paste((60 * (k + 1),) * 3, (0, 0, 32, 64))
        for i in range(train):
            image.save(images / f"{wnid}_{i}.JPEG")
        for i in range(test):
            name = f"val_{i * len(wnids) + k}.JPEG"
            image.save(validation / name)
            annotations.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    (folder / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(annotations))
    return folder


def write_npz(
    path: Path, x_train: ArrayLike, y_train: ArrayLike, x_test: ArrayLike, y_test: ArrayLike
) -> Path:
    """A file for the npz dataset, with arrays of any type and shape as they are; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
    return path


def _write_cifar(path: Path, x: ArrayLike, entries: dict[str, Any]) -> None:
    images = np.asarray(x, np.uint8)
    lists = {k: v if isinstance(v, str) else np.asarray(v).tolist() for k, v in entries.items()}
    names = [f"image_{i}.png" for i in range(len(images))]
    _write_python2_pickle(path, {"data": images.reshape(len(images), -1), "filenames": names, **lists})


def _write_python2_pickle(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        _Python2Pickler(file, protocol=2).dump(value)


class _Python2Pickler(pickle._Pickler):
    """Writes as Python 2 and its NumPy did: byte strings, numpy.core, flags 0 and 1 in dtypes."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, np.dtype):
            return (
                np.dtype,
                (value.str[1:], 0, 1),
                (3, value.byteorder, None, None, None, -1, -1, 0),
            )
        return NotImplemented

    def save_string(self, value: str | bytes) -> None:
        text = value.encode() if isinstance(value, str) else value
        if len(text) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or value.__name__}\n".encode())
        self.memoize(value)
