import math

import numpy as np
import pytest
import torch
from torch import Tensor

from continual.metrics import (
    EXTRA_MEASURES,
    FEATURE_MEASURES,
    TASK_MEASURES,
    approximate_rank,
    backward_transfer,
    dead_unit_fraction,
    distance_from_init,
    dormant_unit_fraction,
    effective_rank,
    forgetting,
    loss_of_plasticity,
    one_step_backward_transfer,
    plasticity,
    rarely_active_unit_fraction,
    sample_plasticity,
    singular_values,
    srank,
    steps_to,
    weight_magnitude,
)


def relu_features(examples: int, units: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, 30, generator=generator)
    return torch.relu(inputs @ torch.randn(30, units, generator=generator) - 2)


def conv_features(examples: int, channels: int, size: int, seed: int = 0) -> Tensor:
    flat = relu_features(examples * size * size, channels, seed)
    return flat.reshape(examples, size, size, channels).movedim(3, 1)


def low_rank_features(examples: int, units: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(examples, rank, generator=generator)
    return left @ torch.randn(rank, units, generator=generator)


def scale_units(features: Tensor, scale: Tensor) -> Tensor:
    return (features.movedim(1, -1) * scale).movedim(-1, 1)


UNEVEN = torch.logspace(0, -6, 40)
HALF_DEAD = torch.tensor([1.0, 0.0] * 20)

FEATURES = {
    "mlp": relu_features(200, 40),
    "dead units": scale_units(relu_features(200, 40), HALF_DEAD),
    "uneven units": scale_units(relu_features(200, 40), UNEVEN),
    "every unit twice": relu_features(200, 20).repeat(1, 2),
    "low rank": low_rank_features(200, 40, 5),
    "low rank before ReLU": low_rank_features(200, 40, 5).relu(),
    "constant": torch.full((200, 40), 0.3),
    "negative": relu_features(200, 40) - 5,
    "more units than examples": relu_features(30, 40),
    "one unit": relu_features(200, 1),
    "one example": relu_features(1, 40),
    "large": relu_features(200, 40) * 1e15,
    "small": relu_features(200, 40) * 1e-15,
    "conv": conv_features(20, 40, 3),
    "conv with uneven channels": scale_units(conv_features(20, 40, 3), UNEVEN),
    "conv with dead channels": scale_units(conv_features(20, 40, 3), HALF_DEAD),
}

each_features = pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES.keys())


def feature_matrix(features: Tensor) -> np.ndarray:
    """[examples, units] in float64, a channel's feature being the mean over its map."""
    array = features.double().numpy()
    return array.mean(axis=(2, 3)) if array.ndim == 4 else array


def brute_srank(matrix: np.ndarray, delta: float = 0.01) -> int:
    values = np.linalg.svd(matrix, compute_uv=False)
    for k in range(len(values) + 1):
        if values[:k].sum() >= (1 - delta) * values.sum():
            return k
    raise AssertionError


def brute_effective_rank(matrix: np.ndarray) -> float:
    values = np.linalg.svd(matrix, compute_uv=False)
    shares = values[values > 0] / values.sum()
    return math.exp(-sum(share * math.log(share) for share in shares))


def brute_dead(features: Tensor) -> float:
    array = features.numpy()
    units = array.shape[1]
    return sum(not array[:, unit].any() for unit in range(units)) / units


def brute_dormant(features: Tensor, threshold: float = 0.025) -> float:
    array = np.abs(features.double().numpy())
    means = [array[:, unit].mean() for unit in range(array.shape[1])]
    layer_mean = sum(means) / len(means)
    return sum(mean / layer_mean <= threshold for mean in means) / len(means)


@each_features
def test_singular_values_are_those_of_the_feature_matrix(features: Tensor) -> None:
    expected = np.linalg.svd(feature_matrix(features), compute_uv=False)
    np.testing.assert_allclose(
        singular_values(features).numpy(), expected, rtol=1e-3, atol=1e-6 * expected[0]
    )


@pytest.mark.parametrize("name", ["dead units", "every unit twice", "conv with dead channels"])
def test_rounding_errors_are_no_singular_values(name: str) -> None:
    values = singular_values(FEATURES[name])
    assert (values[:20] > 0).all()
    assert (values[20:] == 0).all()


@each_features
def test_ranks_equal_their_formulas_on_a_float64_svd(features: Tensor) -> None:
    matrix = feature_matrix(features)
    values = singular_values(features)
    assert srank(values).item() == brute_srank(matrix)
    assert srank(values, delta=0.2).item() == brute_srank(matrix, delta=0.2)
    # Features of low rank hold the rounding errors of float32, about 1e-7 of the largest value.
    assert effective_rank(values).item() == pytest.approx(brute_effective_rank(matrix), rel=2e-5)


@each_features
def test_unit_fractions_equal_their_formulas(features: Tensor) -> None:
    assert dead_unit_fraction(features).item() == pytest.approx(brute_dead(features))
    assert dormant_unit_fraction(features).item() == pytest.approx(brute_dormant(features))
    assert dormant_unit_fraction(features, 0.5).item() == pytest.approx(brute_dormant(features, 0.5))


def test_the_cases_tell_the_measures_apart() -> None:
    assert brute_dead(FEATURES["dead units"]) == 0.5
    assert brute_dead(FEATURES["conv with dead channels"]) == 0.5
    assert brute_dead(FEATURES["uneven units"]) == 0
    assert 0.5 < brute_dormant(FEATURES["uneven units"]) < 1
    assert 0.5 < brute_dormant(FEATURES["conv with uneven channels"]) < 1
    assert brute_srank(FEATURES["low rank"].numpy()) == 5
    assert brute_srank(FEATURES["constant"].numpy()) == 1


def test_a_unit_that_outputs_at_one_position_of_one_example_is_not_dead() -> None:
    features = torch.zeros(5, 4, 3, 3)
    features[3, 1, 2, 0] = 1e-30
    features[4, 2] = -1
    assert dead_unit_fraction(features) == 0.5


def test_a_unit_at_the_threshold_is_dormant() -> None:
    features = torch.tensor([[1.0, 3.0, 8.0]])
    assert dormant_unit_fraction(features, threshold=0.25) == pytest.approx(1 / 3)
    assert dormant_unit_fraction(features, threshold=0.2) == 0


def test_ranks_of_an_orthogonal_matrix() -> None:
    values = singular_values(torch.eye(200))
    assert srank(values) == 198
    assert srank(values, delta=0.0) == 200
    assert effective_rank(values) == pytest.approx(200)


@pytest.mark.parametrize("shape", [(50, 10), (5, 10), (5, 10, 3, 3)])
def test_a_layer_that_is_zero_throughout(shape: tuple[int, ...]) -> None:
    features = torch.zeros(shape)
    values = singular_values(features)
    assert srank(values) == 0
    assert effective_rank(values) == 0
    assert dead_unit_fraction(features) == 1
    assert dormant_unit_fraction(features) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(50, 10), (5, 10, 3, 3)])
def test_a_feature_that_is_not_finite_gives_nan(shape: tuple[int, ...], bad: float) -> None:
    features = torch.ones(shape)
    features[2, 3] = bad
    values = singular_values(features)
    assert values.isnan().all()
    for measure in (
        srank(values),
        effective_rank(values),
        dead_unit_fraction(features),
        dormant_unit_fraction(features),
    ):
        assert measure.isnan()


def random_weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "conv.weight": (4, 3, 5, 5),
        "conv.bias": (4,),
        "block.hidden0.weight": (6, 4),
        "block.hidden0.bias": (6,),
        "scale": (2,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def flat(weights: dict[str, Tensor], names: list[str]) -> np.ndarray:
    return np.concatenate([weights[name].double().numpy().ravel() for name in names])


MODULES = {
    "conv": ["conv.weight", "conv.bias"],
    "block.hidden0": ["block.hidden0.weight", "block.hidden0.bias"],
    "scale": ["scale"],
}


def test_weight_measures_equal_their_formulas() -> None:
    weights, initial = random_weights(0), random_weights(1)
    theta, theta_0 = flat(weights, list(weights)), flat(initial, list(weights))
    assert weight_magnitude(weights).item() == pytest.approx(np.abs(theta).mean(), rel=1e-12)
    assert distance_from_init(weights, initial).item() == pytest.approx(
        np.sqrt(((theta - theta_0) ** 2).sum()), rel=1e-6
    )
    assert distance_from_init(weights, weights) == 0


def test_plasticity_is_the_mean_over_layers_and_each_layer() -> None:
    features = {
        name: FEATURES[name] for name in ("dead units", "low rank before ReLU", "conv with uneven channels")
    }
    weights, initial = random_weights(0), random_weights(1)
    measures = plasticity(features, weights, initial)
    assert list(measures) == [
        *TASK_MEASURES,
        *(f"{measure}/{layer}" for measure in FEATURE_MEASURES for layer in features),
        *(f"weight_magnitude/{module}" for module in MODULES),
        *(f"distance_from_init/{module}" for module in MODULES),
    ]
    assert all(value.shape == () and value.dtype == torch.float32 for value in measures.values())

    expected: dict[str, float] = {}
    for layer, h in features.items():
        expected[f"dead_unit_fraction/{layer}"] = brute_dead(h)
        expected[f"dormant_unit_fraction/{layer}"] = brute_dormant(h)
        expected[f"srank/{layer}"] = brute_srank(feature_matrix(h))
        expected[f"effective_rank/{layer}"] = brute_effective_rank(feature_matrix(h))
    for measure in FEATURE_MEASURES:
        expected[measure] = float(np.mean([expected[f"{measure}/{layer}"] for layer in features]))
    for module, names in {**MODULES, "": list(weights)}.items():
        theta, theta_0 = flat(weights, names), flat(initial, names)
        suffix = f"/{module}" if module else ""
        expected[f"weight_magnitude{suffix}"] = np.abs(theta).mean()
        expected[f"distance_from_init{suffix}"] = np.linalg.norm(theta - theta_0)
    assert {name: value.item() for name, value in measures.items()} == pytest.approx(expected, rel=1e-5)


def test_plasticity_of_a_network_without_hidden_layers() -> None:
    weights = random_weights(0)
    measures = plasticity({}, weights, weights)
    assert all(measures[name].isnan() for name in FEATURE_MEASURES)
    assert measures["distance_from_init"] == 0


def test_a_population_is_measured_as_its_replicas_are_alone() -> None:
    replicas = 5
    features = {
        "conv": torch.stack([conv_features(20, 8, 4, seed) for seed in range(replicas)]),
        "hidden0": torch.stack([relu_features(20, 30, seed) for seed in range(replicas)]),
        "hidden1": torch.stack([relu_features(60, 30, seed) for seed in range(replicas)]),
    }
    features["hidden1"][1] = 0
    features["hidden0"][2, 7, 3] = math.nan
    features["conv"][3, 7, 3] = math.inf
    features["hidden1"][4, :, ::2] = 0
    weights = [random_weights(seed) for seed in range(replicas)]
    initial = [random_weights(10 + seed) for seed in range(replicas)]
    stacked = torch.vmap(plasticity)(
        features,
        {name: torch.stack([replica[name] for replica in weights]) for name in weights[0]},
        {name: torch.stack([replica[name] for replica in initial]) for name in weights[0]},
    )
    for r in range(replicas):
        alone = plasticity({name: h[r] for name, h in features.items()}, weights[r], initial[r])
        assert list(stacked) == list(alone)
        for name, value in alone.items():
            torch.testing.assert_close(stacked[name][r], value, rtol=0, atol=0, equal_nan=True)
    assert stacked["srank"].isnan().tolist() == [False, False, True, True, False]
    assert stacked["srank/hidden1"].isfinite().all()


ACCURACY = [
    [0.9, math.nan, math.nan, math.nan],
    [0.7, 0.8, math.nan, math.nan],
    [0.4, 0.5, 0.85, math.nan],
    [0.3, 0.6, 0.65, 0.75],
]


@pytest.mark.parametrize("as_matrix", [list, np.array, torch.tensor])
def test_backward_transfer_against_its_formula(as_matrix: type) -> None:
    accuracy = as_matrix(ACCURACY)
    assert backward_transfer(accuracy) == pytest.approx(((0.3 - 0.9) + (0.6 - 0.8) + (0.65 - 0.85)) / 3)
    assert one_step_backward_transfer(accuracy) == pytest.approx(
        ((0.7 - 0.9) + (0.5 - 0.8) + (0.65 - 0.85)) / 3
    )


@pytest.mark.parametrize("measure", [backward_transfer, one_step_backward_transfer])
def test_backward_transfer_without_a_past_task_or_a_matrix(measure) -> None:
    assert math.isnan(measure([[0.5]]))
    assert math.isnan(measure([[0.5, math.nan], [math.nan, 0.5]]))
    with pytest.raises(ValueError, match=r"not shape \(2, 3\)"):
        measure(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("values", "rank"),
    [
        ([10.0, 1.0, 0.1], 1),  # squares 100, 1, .01: the first has 99.0 %
        ([9.0, 1.0, 0.1], 2),  # 81 of 82.01 is 98.8 %
        ([1.0, 1.0, 1.0, 1.0], 4),
        ([3.0, 0.0, 0.0], 1),
        ([0.0, 0.0], 0),
    ],
)
def test_the_approximate_rank_adds_squares(values: list[float], rank: int) -> None:
    assert float(approximate_rank(torch.tensor(values, dtype=torch.float64))) == rank


def test_the_approximate_rank_of_what_is_not_finite_is_not_a_number() -> None:
    assert approximate_rank(torch.tensor([math.nan, math.nan])).isnan()


def test_a_unit_is_rarely_active_below_one_percent_of_all_positions() -> None:
    features = torch.zeros(50, 4, 2, 2)  # 200 positions for each of 4 channels
    features[0, 1, 0, 0] = 5.0  # 1 of them: .5 %
    features[:2, 2, 1, 1] = -1.0  # 2 of them: 1 %, which is not below
    features[:, 3] = 1e-30
    assert float(rarely_active_unit_fraction(features)) == 0.5
    assert float(rarely_active_unit_fraction(features[:, [1, 3], 0, 0])) == 0  # 1 of 50 examples is 2 %
    features[7, 3, 0, 0] = math.nan
    assert rarely_active_unit_fraction(features).isnan()


def test_extra_measures_follow_the_others() -> None:
    features = {"hidden0": relu_features(50, 8), "conv0": conv_features(9, 4, 3)}
    weights = {"hidden0.weight": torch.ones(8, 30), "conv0.weight": torch.ones(4, 1, 3, 3)}
    plain = plasticity(features, weights, weights)
    more = plasticity(features, weights, weights, EXTRA_MEASURES)
    assert list(more)[: len(plain)] == list(plain)
    assert list(more)[len(plain) :] == [
        name for measure in EXTRA_MEASURES for name in (measure, f"{measure}/hidden0", f"{measure}/conv0")
    ]
    for name, value in plain.items():
        assert more[name].equal(value)
    spectrum = singular_values(features["conv0"])
    assert float(more["approximate_rank/conv0"]) == float(approximate_rank(spectrum))
    for measure in EXTRA_MEASURES:
        of_layers = [float(more[f"{measure}/{layer}"]) for layer in features]
        assert float(more[measure]) == pytest.approx(sum(of_layers) / 2)


def test_sample_plasticity_is_the_share_of_the_loss_that_an_update_removed() -> None:
    before = torch.tensor([2.0, 1.0, 4.0, 1e-12, 1.0])
    after = torch.tensor([0.5, 3.0, 4.0, 5e-9, 0.0])  # .75; worse: 0; 0; 1 - 5e-9 / 1e-8 = .5; 1
    assert sample_plasticity(before, after).tolist() == pytest.approx([0.75, 0, 0, 0.5, 1])
    assert sample_plasticity(before, torch.full((5,), math.nan)).isnan().all()


@pytest.mark.parametrize("measure", [loss_of_plasticity, forgetting])
def test_a_fall_is_the_first_window_less_the_last(measure) -> None:  # type: ignore[no-untyped-def]
    values = [0.9, 0.8, 0.7, 0.5, 0.4, 0.2]
    assert measure(values) == pytest.approx(0.85 - 0.3)
    assert measure(values, first_task=2) == pytest.approx(0.6 - 0.3)
    assert measure(values, tasks=3) == pytest.approx(0.8 - 1.1 / 3)
    assert measure(values[::-1]) == pytest.approx(-0.55)
    assert math.isnan(measure(values, first_task=3))
    assert math.isnan(measure([*values[:-1], math.nan]))


def test_steps_to_an_accuracy_is_the_first_point_that_has_it() -> None:
    steps, accuracy = [10, 20, 30, 40], [0.2, 0.6, 0.5, 0.9]
    assert steps_to(0.5, steps, accuracy) == 20
    assert steps_to(0.6, steps, accuracy) == 20
    assert steps_to(0.7, steps, accuracy) == 40
    assert math.isnan(steps_to(0.95, steps, accuracy))
    assert math.isnan(steps_to(0.5, [10, 20], [math.nan, 0.4]))
    with pytest.raises(ValueError, match="4 steps for 2 accuracies"):
        steps_to(0.5, steps, [0.1, 0.2])
