"""Measures of plasticity and of forgetting.

Measures of plasticity take the tensors of one network and have no data-dependent control flow, so
that `torch.vmap` runs them over a population. Sums are made in float64: a measure, rounded to
float32, is then the same in any order of summation, so whatever replicas a replica is packed with.
"""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from continual.eigenvalues import eigenvalues

FEATURE_MEASURES = ("dead_unit_fraction", "dormant_unit_fraction", "srank", "effective_rank")
WEIGHT_MEASURES = ("weight_magnitude", "distance_from_init")
TASK_MEASURES = FEATURE_MEASURES + WEIGHT_MEASURES
EXTRA_MEASURES = ("approximate_rank", "rarely_active_unit_fraction")


def singular_values(features: Tensor) -> Tensor:
    """Singular values of one layer's feature matrix [examples, units], largest first, as float64.

    features: [B, U], or [B, C, H, W], where a channel's feature is the mean over its map.
    Returns [min(B, U)]; NaN throughout if any feature is NaN or infinite.

    They are the square roots of the eigenvalues of the Gram matrix. With 1,000 examples and 100
    units that takes 1.0 ms on one CPU thread, `svdvals` 2.0 ms in float32 and 3.2 ms in float64.
    Values below 5e-7 of the largest (at that size) are rounding errors of the Gram matrix, and of
    features in float32, which would count as rank: they are set to 0.
    """
    h_BU = _over_positions(features).mean(2).double()
    is_finite = h_BU.isfinite().all()
    # Eigenvalues of NaN are an error, and one diverged replica must not stop the others.
    h_BU = torch.where(is_finite, h_BU, 0.0)
    examples, units = h_BU.shape
    gram = h_BU.T @ h_BU if units <= examples else h_BU @ h_BU.T
    squares = eigenvalues(gram).flip(-1)
    smallest = max(examples, units) * torch.finfo(torch.float64).eps * squares[0]
    values = torch.where(squares > smallest, squares, 0.0).sqrt()
    return torch.where(is_finite, values, torch.nan)


def srank(singular_values: Tensor, delta: float = 0.01) -> Tensor:
    """Smallest k for which the k largest singular values make up 1 - delta of the sum of all.

        srank = min { k : s_1 + ... + s_k >= (1 - delta) * (s_1 + ... + s_N) }

    singular_values: [N], largest first. 0-d result. A zero matrix has rank 0. NaN if a value is
    not finite. (Kumar, Agarwal, Ghosh & Levine 2021, "Implicit Under-Parameterization Inhibits
    Data-Efficient Deep Reinforcement Learning", section 3.)

    They are those of a layer's units on test images of the task just learned. A channel of a convolution
    is one unit, the mean over its map: its rank is at most the number of channels. The code of Kumar et
    al. (2024) takes the pooled maps flattened, on the next task's images, and counts one less.
    """
    sums = singular_values.cumsum(0)
    total = sums[-1]
    rank = (sums < (1 - delta) * total).sum() + 1
    rank = torch.where(total > 0, rank, 0).to(singular_values.dtype)
    return torch.where(total.isfinite(), rank, torch.nan)


def effective_rank(singular_values: Tensor) -> Tensor:
    """exp(entropy of the singular values divided by their sum).

        p_i = s_i / (s_1 + ... + s_N),    effective rank = exp(-sum_i p_i ln p_i)

    singular_values: [N]. 0-d result. The definition is for non-zero matrices; a zero matrix gets
    its rank, 0. NaN if a value is not finite. Of a convolution see `srank`. (Roy & Vetterli 2007, "The
    Effective Rank: A Measure of Effective Dimensionality".)
    """
    total = singular_values.sum()
    shares = singular_values / torch.where(total == 0, 1.0, total)
    rank = torch.exp(-torch.xlogy(shares, shares).sum())
    return torch.where(total == 0, 0.0, rank)


def approximate_rank(singular_values: Tensor, share: float = 0.99) -> Tensor:
    """Smallest k for which the squares of the k largest singular values make up `share` of the sum of all.

        approximate rank = min { k : s_1^2 + ... + s_k^2 >= share * (s_1^2 + ... + s_N^2) }

    singular_values: [N], largest first. 0-d result. A zero matrix has rank 0. NaN if a value is
    not finite. (Dohare et al. 2024, "Loss of plasticity in deep continual learning", Online Permuted
    MNIST. `srank` is the same of the values themselves.)
    """
    return srank(singular_values**2, 1 - share)


def dead_unit_fraction(features: Tensor) -> Tensor:
    """Fraction of a layer's units that output 0 at every example and every position.

        mean_u [ h_bu = 0 for all b ]

    features: [B, U] or [B, C, H, W], where a unit is a channel. 0-d float64 result in [0, 1]; NaN
    if a feature is NaN or infinite.
    """
    activation_U = _activation(features)
    return _fraction(activation_U == 0, activation_U)


def dormant_unit_fraction(features: Tensor, threshold: float = 0.025) -> Tensor:
    """Fraction of a layer's units with a mean |activation| of at most `threshold` x the layer's.

        a_u = mean_b |h_bu|,    mean_u [ a_u <= threshold * mean_v a_v ]

    features: [B, U] or [B, C, H, W], where a unit is a channel. In a layer that is zero throughout
    every unit is dormant. 0-d float64 result in [0, 1]; NaN if a feature is NaN or infinite.
    (Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", section 3.)
    """
    activation_U = _activation(features)
    return _fraction(activation_U <= threshold * activation_U.mean(), activation_U)


def rarely_active_unit_fraction(features: Tensor, least: float = 0.01) -> Tensor:
    """Fraction of a layer's units that are not 0 at less than `least` of all examples and positions.

        mean_u [ mean_b [ h_bu != 0 ] < least ]

    features: [B, U] or [B, C, H, W], where a unit is a channel. 0-d float64 result in [0, 1]; NaN if
    a feature is NaN or infinite. (What Dohare et al. 2024, "Loss of plasticity in deep continual
    learning", call dormant units of a ResNet, class-incremental CIFAR-100.)
    """
    is_active_UN = (_over_positions(features) != 0).movedim(1, 0).flatten(1)
    return _fraction(is_active_UN.double().mean(1) < least, _activation(features))


def weight_magnitude(weights: Mapping[str, Tensor]) -> Tensor:
    """Mean of |theta| over all entries of all tensors in `weights`: 0-d, float64."""
    total = torch.stack([_norm(weight, 1) for weight in weights.values()]).sum()
    return total / sum(weight.numel() for weight in weights.values())


def distance_from_init(weights: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> Tensor:
    """Euclidean distance ||theta - theta_0|| over all tensors in `weights` together: 0-d, float64.

    initial: holds a tensor of the same shape under each of `weights`' names.
    """
    distances = [_norm(weight - initial[name], 2) for name, weight in weights.items()]
    return _norm(torch.stack(distances), 2)


def accuracy(logits_BK: Tensor, y_B: Tensor) -> Tensor:
    """The fraction of examples whose largest logit is their label's: 0-d, float64.

    NaN where a logit is not finite: argmax takes NaN for the largest, and would find an accuracy in that.
    """
    accuracy = (logits_BK.argmax(-1) == y_B).to(torch.float64).mean()
    return torch.where(logits_BK.isfinite().all(), accuracy, torch.nan)


def plasticity(
    features: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    extra: Collection[str] = (),
) -> dict[str, Tensor]:
    """The measures of one network: 0-d float32 tensors.

    features: name of a hidden layer -> [B, U] or [B, C, H, W].
    weights, initial: parameter name -> tensor, for the parameters that count: weights and biases.

    The keys are TASK_MEASURES in that order, where those of features are means over layers (NaN if
    there is none), then `<measure>/<layer>` for each. A weight's layer is the module that owns it:
    "hidden0" for "hidden0.weight". Those of EXTRA_MEASURES that are in `extra` follow likewise.
    """
    spectra = {layer: singular_values(h) for layer, h in features.items()}
    modules = _by_module(weights)
    per_layer = {
        "dead_unit_fraction": {layer: dead_unit_fraction(h) for layer, h in features.items()},
        "dormant_unit_fraction": {layer: dormant_unit_fraction(h) for layer, h in features.items()},
        "srank": {layer: srank(values) for layer, values in spectra.items()},
        "effective_rank": {layer: effective_rank(values) for layer, values in spectra.items()},
        "weight_magnitude": {name: weight_magnitude(own) for name, own in modules.items()},
        "distance_from_init": {name: distance_from_init(own, initial) for name, own in modules.items()},
    }
    if "approximate_rank" in extra:
        per_layer["approximate_rank"] = {layer: approximate_rank(v) for layer, v in spectra.items()}
    if "rarely_active_unit_fraction" in extra:
        per_layer["rarely_active_unit_fraction"] = {
            layer: rarely_active_unit_fraction(h) for layer, h in features.items()
        }
    measures = {name: _mean_over(per_layer[name]) for name in FEATURE_MEASURES}
    measures["weight_magnitude"] = weight_magnitude(weights)
    measures["distance_from_init"] = distance_from_init(weights, initial)
    for name, by_layer in per_layer.items():
        if name in EXTRA_MEASURES:
            measures[name] = _mean_over(by_layer)
        measures |= {f"{name}/{layer}": value for layer, value in by_layer.items()}
    return {name: value.float() for name, value in measures.items()}


def gradients(grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The norm of a gradient and the fraction of its entries that are exactly 0: 0-d float32 tensors.

        gradient_norm = ||g||_2,    zero_gradient_fraction = mean_i [ g_i = 0 ]

    grads: parameter name -> tensor. The keys are `gradient_norm` and `zero_gradient_fraction`, over all
    entries, then each of them by layer, as in `plasticity`.
    """
    layers = {"": grads, **{f"/{name}": own for name, own in _by_module(grads).items()}}
    norms, zeros = {}, {}
    for suffix, own in layers.items():
        entries = torch.cat([grad.flatten() for grad in own.values()]).double()
        norms[f"gradient_norm{suffix}"] = torch.linalg.vector_norm(entries).float()
        zeros[f"zero_gradient_fraction{suffix}"] = (entries == 0).double().mean().float()
    overall = {"gradient_norm": norms.pop("gradient_norm")}
    overall["zero_gradient_fraction"] = zeros.pop("zero_gradient_fraction")
    return {**overall, **norms, **zeros}


def sample_plasticity(loss_before_B: Tensor, loss_after_B: Tensor) -> Tensor:
    """max(1 - after / max(before, 1e-8), 0): how much of its loss an update removed, of each example.

    The losses [B] of the same examples with the weights before and after the update on them. A float64
    result [B] in [0, 1]; NaN where a loss is NaN. (Elsayed & Mahmood 2024, "Addressing Loss of Plasticity and
    Catastrophic Forgetting in Continual Learning", which has one example a batch.)
    """
    before_B, after_B = loss_before_B.double(), loss_after_B.double()
    return (1 - after_B / before_B.clamp(min=1e-8)).clamp(min=0)


def loss_of_plasticity(plasticity_T: ArrayLike, first_task: int = 0, tasks: int = 2) -> float:
    """Mean plasticity over the `tasks` tasks from `first_task` on, less that over the last as many.

    plasticity_T: the mean sample plasticity of each task, in their order. Positive where it fell. NaN if
    there are fewer than 2 `tasks` from `first_task` on, or if a value that is read is NaN. (Elsayed &
    Mahmood 2024, whose windows are 2 tasks long and begin after half of the steps.)
    """
    return _fall(plasticity_T, first_task, tasks)


def forgetting(accuracy_T: ArrayLike, first_task: int = 0, tasks: int = 2) -> float:
    """Mean online accuracy over the `tasks` tasks from `first_task` on, less that over the last as many.

    What is no longer known of tasks that resemble one another. Takes and returns what `loss_of_plasticity`
    does. (Elsayed & Mahmood 2024.)
    """
    return _fall(accuracy_T, first_task, tasks)


def steps_to(level: float, steps_P: ArrayLike, accuracy_P: ArrayLike) -> float:
    """The first of these steps at which the accuracy is at least `level`; NaN if it never is.

    steps_P, accuracy_P: P points of a curve, in the order of their steps. (The time that Ash & Adams 2020,
    "On Warm-Starting Neural Network Training", compare at an accuracy of 0.99.)
    """
    steps, accuracy = np.asarray(steps_P, dtype=np.float64), np.asarray(accuracy_P, dtype=np.float64)
    if steps.shape != accuracy.shape:
        raise ValueError(f"{steps.size} steps for {accuracy.size} accuracies")
    reached = np.flatnonzero(accuracy >= level)
    return float(steps[reached[0]]) if reached.size else float("nan")


def backward_transfer(accuracy_KM: ArrayLike) -> float:
    """Mean over m < K of A[K, m] - A[m, m]: what K tasks in all did to the accuracy on each.

    accuracy_KM: A[k, m], the test accuracy on task m after task k; entries with m > k are not read.
    NaN with fewer than two tasks or if an entry that is read is NaN. Raises ValueError if the
    matrix is not square. (Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory".)
    """
    accuracy_KM = _square(accuracy_KM)
    return _mean_or_nan(accuracy_KM[-1, :-1] - accuracy_KM.diagonal()[:-1])


def one_step_backward_transfer(accuracy_KM: ArrayLike) -> float:
    """Mean over m < K of A[m+1, m] - A[m, m]: what one further task did to the accuracy on each.

    Takes, returns and raises what `backward_transfer` does.
    """
    accuracy_KM = _square(accuracy_KM)
    return _mean_or_nan(accuracy_KM.diagonal(-1) - accuracy_KM.diagonal()[:-1])


def _over_positions(features: Tensor) -> Tensor:
    """[B, U] -> [B, U, 1] and [B, C, H, W] -> [B, C, H * W]."""
    return features.reshape(features.shape[0], features.shape[1], -1)


def _activation(features: Tensor) -> Tensor:
    """|activation| of each unit, summed over positions and averaged over examples: [U], float64."""
    sum_BU: Tensor = torch.linalg.vector_norm(_over_positions(features), 1, dim=2)
    return sum_BU.double().mean(0)


def _fraction(is_counted_U: Tensor, activation_U: Tensor) -> Tensor:
    fraction = is_counted_U.double().mean()
    return torch.where(activation_U.isfinite().all(), fraction, torch.nan)


def _norm(tensor: Tensor, order: int) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, order, dtype=torch.float64)
    return norm


def _mean_over(layers: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(layers.values())).mean() if layers else torch.tensor(torch.nan)


def _by_module(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    modules: dict[str, dict[str, Tensor]] = {}
    for name, weight in weights.items():
        module = name.rpartition(".")[0] or name
        modules.setdefault(module, {})[name] = weight
    return modules


def _square(accuracy_KM: ArrayLike) -> np.ndarray:
    accuracy = np.asarray(accuracy_KM, dtype=np.float64)
    if accuracy.ndim != 2 or accuracy.shape[0] != accuracy.shape[1]:
        raise ValueError(f"a matrix [tasks, tasks] is needed, not shape {accuracy.shape}")
    return accuracy


def _fall(values_T: ArrayLike, first: int, length: int) -> float:
    values = np.asarray(values_T, dtype=np.float64)[first:]
    if len(values) < 2 * length:
        return float("nan")
    return float(values[:length].mean() - values[-length:].mean())


def _mean_or_nan(differences: np.ndarray) -> float:
    return float(differences.mean()) if differences.size else float("nan")
