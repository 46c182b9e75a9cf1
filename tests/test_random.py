import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import vmap

from continual import random

KEY = random.key(1)
# All draws are fixed by their keys, so a p-value is the same in every run.
PLAUSIBLE = 1e-3


def correlation(one, other):
    """The z-score of the correlation of two samples: within 4 if they are independent."""
    return abs(float(np.corrcoef(one, other)[0, 1])) * np.sqrt(len(one))


def first_uniforms(keys):
    """The first uniform number under each of the keys [N, 2]."""
    return vmap(lambda key: random.uniform(key, (1,)))(keys)[:, 0].numpy()


def test_every_seed_of_64_bits_has_a_key_of_its_own():
    seeds = [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**62, 2**63 - 1]
    seeds += [-seed for seed in seeds if seed]
    keys = [tuple(random.key(seed).tolist()) for seed in seeds]
    assert len(set(keys)) == len(seeds)
    assert random.key(-5).dtype == torch.int32
    assert random.key(-5).shape == (2,)
    assert torch.equal(random.key(7), random.key(7))


def test_numbers_are_the_same_in_every_version_of_the_program():
    key = random.fold(random.stream(random.key(2023), "labels"), 3)
    assert random.bits(key, 3).tolist() == [1254006527, -1743532281, 838056401]
    assert random.integers(key, 8, 10).tolist() == [2, 5, 1, 2, 0, 7, 3, 7]
    assert random.permutation(key, 6).tolist() == [1, 5, 4, 2, 3, 0]


def test_each_byte_of_the_bits_is_uniform():
    patterns = random.bits(KEY, 200_000).numpy().view(np.uint32)
    for shift in (0, 8, 16, 24):
        counts = np.bincount((patterns >> shift) & 0xFF, minlength=256)
        assert stats.chisquare(counts).pvalue > PLAUSIBLE


def test_bits_do_not_repeat_each_other():
    patterns = random.bits(KEY, 2**15).numpy().view(np.uint32)
    is_set = (patterns[:, None] >> np.arange(32)) & 1
    within = np.corrcoef(is_set.T) - np.eye(32)
    from_one_to_the_next = np.corrcoef(is_set[:-1].T, is_set[1:].T)[:32, 32:]
    assert np.abs([within, from_one_to_the_next]).max() * np.sqrt(len(patterns)) < 5
    # A 32-bit permutation of the counter never gives the same pattern twice under one key.
    assert len(np.unique(patterns)) == len(patterns)


@pytest.mark.parametrize("count", [100, 100_000])
def test_uniform_and_normal_are_distributed_so(count):
    x, z = random.uniform(KEY, (count,)).numpy(), random.normal(KEY, (count,)).numpy()
    assert stats.kstest(x, "uniform").pvalue > PLAUSIBLE
    assert stats.kstest(z, "norm").pvalue > PLAUSIBLE


def test_uniform_is_in_its_interval_with_24_random_bits():
    x = random.uniform(KEY, (100_000,)).double()
    assert x.min() >= 0
    assert x.max() < 1
    assert torch.equal(x * 2**24, (x * 2**24).round())
    assert random.uniform(KEY, (3, 4, 5)).shape == (3, 4, 5)
    assert random.uniform(KEY, ()).shape == ()


def test_normal_has_its_moments_and_tails():
    z = random.normal(KEY, (1_000_000,)).numpy()
    assert abs(z.mean()) < 4e-3
    assert abs(z.var() - 1) < 6e-3
    assert abs(stats.skew(z)) < 0.01
    assert abs(stats.kurtosis(z)) < 0.02
    assert 4.4 < np.abs(z).max() < 6
    assert correlation(z[:-1], z[1:]) < 4
    assert correlation(z[:-1] ** 2, z[1:] ** 2) < 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (random.key(0), random.key(1)),
        (random.key(1), random.key(-1)),
        (random.key(1), random.key(1 + 2**32)),
        (random.stream(KEY, "weights"), random.stream(KEY, "batches")),
        (random.stream(KEY, "ab"), random.stream(KEY, "ba")),
        (random.stream(KEY, "hidden0.weight"), random.stream(KEY, "hidden1.weight")),
        (random.fold(KEY, 0), random.fold(KEY, 1)),
        (random.fold(random.fold(KEY, 1), 2), random.fold(random.fold(KEY, 2), 1)),
        (KEY, random.fold(KEY, 0)),
    ],
)
def test_neighbouring_keys_draw_independent_numbers(one, other):
    x, y = (random.uniform(key, (50_000,)).numpy() for key in (one, other))
    assert correlation(x, y) < 4
    for lag in (1, 2, 3):
        assert correlation(x[lag:], y[:-lag]) < 4
    cells, _, _ = np.histogram2d(x, y, bins=16, range=[[0, 1], [0, 1]])
    assert stats.chisquare(cells.ravel()).pvalue > PLAUSIBLE
    assert not set(random.bits(one, 1000).tolist()) & set(random.bits(other, 1000).tolist())


@pytest.mark.parametrize("what", ["seeds", "counters", "streams", "steps of an agent"])
def test_the_first_numbers_of_successive_keys_are_independent(what):
    count = 5000
    match what:
        case "seeds":
            keys = torch.stack([random.key(seed) for seed in range(count)])
        case "counters":
            keys = vmap(lambda counter: random.fold(KEY, counter))(torch.arange(count))
        case "streams":
            keys = torch.stack([random.stream(KEY, f"layer{i}") for i in range(count)])
        case _:
            agent = random.stream(KEY, "agent")
            keys = vmap(lambda step: random.stream(random.fold(agent, step), "w"))(torch.arange(count))
    x = first_uniforms(keys)
    assert stats.kstest(x, "uniform").pvalue > PLAUSIBLE
    for lag in (1, 2, 16):
        assert correlation(x[lag:], x[:-lag]) < 4
    assert len(torch.unique(keys, dim=0)) == count


def test_names_of_streams_do_not_collide():
    names = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("abcdefgh.01", repeat=n)]
    keys = {tuple(random.stream(KEY, name).tolist()) for name in names}
    assert len(keys) == len(names)


@pytest.mark.parametrize("high", [1, 2, 3, 10, 1000, 2**31])
def test_integers_are_uniform_below_their_bound(high):
    drawn = random.integers(KEY, 50_000, high)
    assert drawn.dtype == torch.int64
    assert drawn.min() >= 0
    assert drawn.max() < high
    cells = np.histogram(drawn.numpy(), bins=min(high, 64), range=(0, high))[0]
    expected = np.diff(np.ceil(np.linspace(0, high, len(cells) + 1)))
    assert len(cells) == 1 or stats.chisquare(cells, 50_000 * expected / high).pvalue > PLAUSIBLE


@pytest.mark.parametrize("count", [1, 2, 7, 784, 60_000])
def test_a_permutation_has_every_number_once(count):
    order = random.permutation(KEY, count)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(count))


def test_every_permutation_of_few_is_equally_likely():
    keys = vmap(lambda counter: random.fold(KEY, counter))(torch.arange(24_000))
    orders = vmap(lambda key: random.permutation(key, 4))(keys)
    _, counts = orders.unique(dim=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts.numpy()).pvalue > PLAUSIBLE


def test_every_number_is_equally_likely_at_every_place_of_a_long_permutation():
    keys = vmap(lambda counter: random.fold(KEY, counter))(torch.arange(2000))
    orders = vmap(lambda key: random.permutation(key, 100))(keys).numpy()
    for place in (0, 1, 50, 99):
        assert stats.chisquare(np.bincount(orders[:, place], minlength=100)).pvalue > PLAUSIBLE


@pytest.mark.parametrize("counter", [0, 1, -1, 625, 2**31 - 1, 2**32 - 1])
def test_a_counter_may_be_a_number_or_a_tensor(counter):
    assert torch.equal(random.fold(KEY, counter), random.fold(KEY, torch.tensor(counter)))


def draws(key, step):
    """Every kind of draw, from a key folded with a step."""
    key = random.stream(random.fold(key, step), "noise")
    return {
        "bits": random.bits(key, 33),
        "uniform": random.uniform(key, (3, 11)),
        "integers": random.integers(key, 33, 7),
        "permutation": random.permutation(key, 33),
        "normal": random.normal(key, (3, 11)),
    }


KEYS = torch.stack([random.key(seed) for seed in (0, 1, -1, 12345)])


def test_a_draw_is_the_same_alone_and_among_others():
    together = vmap(draws, (0, None))(KEYS, torch.tensor(5))
    for i, key in enumerate(KEYS):
        for name, drawn in draws(key, 5).items():
            assert torch.equal(together[name][i], drawn), name


def test_a_draw_is_the_same_compiled():
    compiled = torch.compile(vmap(draws, (0, None)), fullgraph=True)(KEYS, torch.tensor(5))
    eager = vmap(draws, (0, None))(KEYS, torch.tensor(5))
    for name in ("bits", "uniform", "integers", "permutation"):
        assert torch.equal(compiled[name], eager[name]), name
    assert (compiled["normal"] - eager["normal"]).abs().max() < 1e-5


def test_a_subset_is_the_start_of_a_permutation_and_all_in_order_where_there_are_no_more():
    key = random.key(3)
    assert random.subset(key, 4, 9).tolist() == random.permutation(key, 9)[:4].tolist()
    for count in (9, 10, 100):
        assert random.subset(key, count, 9).tolist() == list(range(9))
