"""From a config to what it describes, once."""

import functools
import pickle

import pytest
import torch

from continual import building
from continual.errors import ConfigError
from tests import tiny
from tests.datasets.writers import random_arrays, write_mnist, write_npz


@pytest.mark.parametrize("precision", ["tf32", "bf16", "float32"])
def test_products_on_a_gpu_are_rounded_if_that_is_asked_for(tmp_path, compose, precision):
    config = compose(f"engine.precision={precision}")
    building.population(tiny.replicas([config], tmp_path), *building.prepare(config)).release()
    assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")


def test_what_was_checked_is_not_built_again(compose):
    learner, environment = building.prepare(compose())
    again, same = building.prepare(compose("seed=3", "engine.threads=2"))
    assert again is learner
    assert same is environment
    other, _ = building.prepare(compose("network.hidden_sizes=[10,10]"))
    assert other is not learner


def test_a_file_of_data_that_changed_is_read_again(tmp_path):
    file = write_npz(tmp_path / "a.npz", *random_arrays(60, 20, tiny.IMAGE, tiny.CLASSES))
    config = tiny.small(file)
    _, before = building.prepare(config)
    write_npz(file, *random_arrays(61, 20, tiny.IMAGE, tiny.CLASSES))
    _, after = building.prepare(config)
    assert (len(before.dataset.x_train), len(after.dataset.x_train)) == (60, 61)


def test_a_file_in_the_home_folder_that_changed_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tiny.small("'~/a.npz'")
    for images in (60, 61):
        write_npz(tmp_path / "a.npz", *random_arrays(images, 20, tiny.IMAGE, tiny.CLASSES))
        _, environment = building.prepare(config)
        assert len(environment.dataset.x_train) == images


def test_a_folder_of_data_that_changed_is_read_again(tmp_path):
    def write(images):
        write_mnist(tmp_path, *random_arrays(images, 20, tiny.IMAGE, 10))

    data = ["env/dataset=mnist", f"data_dir={tmp_path}", "env.dataset.verify=false"]
    config = tiny.compose("device=cpu", "env=random_label_mnist", "env.samples_per_task=40", *data)
    write(60)
    _, before = building.prepare(config)
    assert building.prepare(config)[1] is before
    write(61)
    _, after = building.prepare(config)
    assert (len(before.dataset.x_train), len(after.dataset.x_train)) == (60, 61)
    # As well where processes share the data.
    shared = building.share_dataset(config)
    assert shared is not None
    write(62)
    assert len(building.prepare(config)[1].dataset.x_train) == 62
    shared.dataset.close()


def test_a_network_that_no_memory_holds_is_one_sentence(compose):
    with pytest.raises(ConfigError, match=r"^network: this does not fit into the machine's memory"):
        building.prepare(compose("network.hidden_sizes=[2147483647,9]"))


def test_a_shared_dataset_is_used_and_not_read_again(tmp_path, monkeypatch):
    file = write_npz(tmp_path / "a.npz", *random_arrays(60, 20, tiny.IMAGE, tiny.CLASSES))
    config = tiny.small(file)
    _, before = building.prepare(config)
    data = building.share_dataset(config)
    assert data is not None
    monkeypatch.setattr(
        building.schema, "make", functools.partial(_make_but_no_dataset, building.schema.make)
    )
    _, after = building.prepare(config)
    assert torch.equal(after.dataset.x_train, before.dataset.x_train)
    assert after.dataset.x_train.data_ptr() != before.dataset.x_train.data_ptr()
    # What a worker does with what was sent to it.
    building._SHARED.clear()
    building.use_shared(pickle.loads(pickle.dumps(data)))
    assert building.prepare(config)[1].dataset.fingerprint == before.dataset.fingerprint
    data.dataset.close()
    write_npz(file, *random_arrays(61, 20, tiny.IMAGE, tiny.CLASSES))
    with pytest.raises(AssertionError, match="a dataset is read"):
        building.prepare(config)


def _make_but_no_dataset(make, node, path, **provided):
    assert path != "env.dataset", "a dataset is read"
    return make(node, path, **provided)


def test_a_dataset_that_cannot_be_read_is_not_shared(tmp_path):
    config = tiny.small(tmp_path / "absent.npz")
    assert building.share_dataset(config) is None


def test_without_shared_memory_a_worker_reads_the_data(compose, monkeypatch):
    monkeypatch.setattr(building, "share", lambda dataset: None)
    assert building.share_dataset(compose()) is None
    assert len(building.prepare(compose())[1].dataset.x_train) == 60
