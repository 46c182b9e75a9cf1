import torch
from sklearn.datasets import load_digits

from continual.datasets.digits import digits


def test_sizes_and_scaling():
    dataset = digits()
    assert dataset.x_train.shape == (1437, 1, 8, 8)
    assert dataset.x_test.shape == (360, 1, 8, 8)
    assert dataset.x_train.dtype == torch.uint8
    assert (int(dataset.x_train.min()), int(dataset.x_train.max())) == (0, 16)
    assert (dataset.scale, dataset.shift) == ((1 / 8,), (-1.0,))


def test_the_parts_together_are_the_library_s_images():
    dataset, original = digits(), load_digits()
    images = torch.cat([dataset.x_train, dataset.x_test]).flatten(1).double()
    labels = torch.cat([dataset.y_train, dataset.y_test])
    ours = torch.cat([images, labels[:, None]], dim=1)
    theirs = torch.cat([torch.from_numpy(original.data), torch.from_numpy(original.target)[:, None]], dim=1)
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_the_split_is_stratified_and_always_the_same():
    dataset = digits()
    train, test = dataset.y_train.bincount(), dataset.y_test.bincount()
    assert ((test - (train + test) / 5).abs() < 1).all()
    assert torch.equal(digits().x_test, dataset.x_test)


def test_both_parts_keep_the_file_s_order():
    dataset = digits()
    original = load_digits().data.tolist()
    train, test = (x.flatten(1).tolist() for x in (dataset.x_train, dataset.x_test))
    taken = [0, 0]
    for image in original:
        part = 0 if taken[0] < len(train) and image == train[taken[0]] else 1
        assert image == (train, test)[part][taken[part]]
        taken[part] += 1
