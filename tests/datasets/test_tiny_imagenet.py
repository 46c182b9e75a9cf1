import pytest
import torch
from PIL import Image

from continual.datasets.tiny_imagenet import FOLDER, tiny_imagenet
from continual.errors import DataError
from tests.datasets.writers import write_tiny_imagenet

WNIDS = ["n01443537", "n01629819", "n02124075"]


def test_images_are_read_with_their_classes(tmp_path):
    write_tiny_imagenet(tmp_path, WNIDS, train=4, test=2)
    dataset = tiny_imagenet(str(tmp_path))
    assert dataset.x_train.shape == (12, 3, 64, 64)
    assert dataset.y_train.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert sorted(dataset.y_test.tolist()) == [0, 0, 1, 1, 2, 2]
    assert dataset.num_classes == 3
    # Each class has a shade of its own; JPEG loses a little of it.
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        shade = x[:, :, :, :32].float().mean((1, 2, 3))
        assert ((shade - (60 + 60 * y)).abs() < 5).all()


def test_a_grey_image_becomes_a_coloured_one(tmp_path):
    folder = write_tiny_imagenet(tmp_path, WNIDS, train=1, test=1)
    grey = folder / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_0.JPEG"
    Image.open(grey).convert("L").save(grey)
    first = tiny_imagenet(str(tmp_path)).x_train[0]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])


def test_absent_files_are_named_with_folder_and_ways_out(tmp_path):
    with pytest.raises(
        DataError, match=r"lacks wnids\.txt and val/val_annotations\.txt.*tiny-imagenet-200\.zip"
    ):
        tiny_imagenet(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("wnids.txt", b""),
        ("wnids.txt", b"n01443537\nn99999999\n"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn99999999\t0\t0\t62\t62\n"),
        ("val/val_annotations.txt", b"val_0.JPEG\n"),
        ("val/val_annotations.txt", b"\xff\xfe"),
        ("val/images/val_0.JPEG", b""),
        ("val/images/val_0.JPEG", b"<html>404"),
        (f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG", None),
        (f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG", "small"),
        (f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG", "partial"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content):
    file = write_tiny_imagenet(tmp_path, WNIDS, train=1, test=1) / name
    if content is None:
        file.unlink()
    elif content == "small":
        Image.new("RGB", (8, 8)).save(file)
    elif content == "partial":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.write_bytes(content)
    with pytest.raises(DataError, match="is damaged") as caught:
        tiny_imagenet(str(tmp_path))
    assert str(tmp_path / FOLDER) in str(caught.value)
    assert "\n" not in str(caught.value)
