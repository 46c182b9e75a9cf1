import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from continual.datasets.array_pickle import parse_array_dict
from continual.errors import DataError

PATH = Path("folder/file")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)),
        np.arange(12, dtype=">i4").reshape(3, 4),
        np.arange(5),
        np.zeros((0, 2), np.int16),
    ],
)
def test_integer_arrays_of_every_protocol(protocol, array):
    content = pickle.dumps({"data": array, b"labels": [1, 2], "name": "x"}, protocol)
    read = parse_array_dict(PATH, content)
    assert set(read) == {"data", "labels", "name"}
    np.testing.assert_array_equal(read["data"], array)
    assert read["data"].dtype == array.dtype
    assert read["labels"] == [1, 2]


def test_numpy_s_numbers_become_plain_ones():
    content = pickle.dumps({"labels": [np.int64(3), np.uint8(7)]}, 2)
    assert parse_array_dict(PATH, content)["labels"] == [3, 7]


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Calls(os.system, "touch {marker}"), "asks for posix.system"),
        (Calls(eval, "open('{marker}', 'w')"), "asks for (builtins|__builtin__).eval"),
        (Calls(np.save, "{marker}", 1), "asks for numpy.save"),
        (Calls(np.load, "{marker}"), "asks for numpy.load"),
        (OrderedDict(a=1), "asks for collections.OrderedDict"),
        (np.array([1.5]), "arrays of float64"),
        (np.array([{}], dtype=object), "arrays of object"),
        (np.zeros(2, dtype=[("a", int)]), "arrays of"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_anything_else_is_refused_and_not_run(tmp_path, value, why, protocol):
    marker = tmp_path / "ran"
    if isinstance(value, Calls):
        function, arguments = value.call
        value = Calls(function, *(a.format(marker=marker) if isinstance(a, str) else a for a in arguments))
    with pytest.raises(DataError, match=f"folder/file is damaged .*{why}"):
        parse_array_dict(PATH, pickle.dumps({"data": value}, protocol))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [[1, 2], "text", None, np.arange(3)])
def test_a_pickle_of_something_else_is_refused(value):
    with pytest.raises(DataError, match="in place of a dict"):
        parse_array_dict(PATH, pickle.dumps(value, 2))


def test_damage_is_an_error_of_one_kind():
    content = pickle.dumps({"data": np.arange(40, dtype=np.uint8), "labels": [1] * 9}, 2)
    for length in range(len(content)):
        with pytest.raises(DataError):
            parse_array_dict(PATH, content[:length])
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        noisy = bytearray(content)
        noisy[generator.integers(len(noisy))] = generator.integers(256)
        try:
            parse_array_dict(PATH, bytes(noisy))
        except DataError:
            refused += 1
    assert refused > 100
