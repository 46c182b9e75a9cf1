"""What is measured of a population, at the end of a task and after a fraction of it; and as whose row.

Each function reads from the device once for all replicas.
"""

from collections.abc import Collection

from torch import Tensor

from continual import metrics, random
from continual.config import MetricsConfig
from continual.population import Population
from continual.tracking.run_folder import Row
from continual.tree import Tree

# Features and gradients are measured on this many examples (the paper's measure), all if there are no more.
_MEASURED_EXAMPLES = 1000


def after_fractions(population: Population, fractions: Collection[float]) -> list[Row]:
    """Columns of the task's row that are known before its end, by replica; for fractions that end here."""
    measure = population.learner.loss.measure
    online, test = population.online_measure(), test_measure(population, population.task).tolist()
    return [
        {
            name: value
            for fraction in fractions
            for name, value in (
                (f"online_{measure}@{fraction:g}", online[r]),
                (f"test_{measure}@{fraction:g}", test[r]),
            )
        }
        for r in range(population.size)
    ]


def after_task(population: Population, wanted: MetricsConfig) -> list[Row]:
    """The row of the task that has just ended, by replica."""
    environment, task = population.environment, population.task
    online, loss = population.online_measure(), population.online_loss()
    measures = {name: values.tolist() for name, values in at_task_end(population, wanted.extra).items()}
    if wanted.gradients:
        measures |= {name: values.tolist() for name, values in gradients(population).items()}
    if wanted.sample_plasticity:
        measures["sample_plasticity"] = population.sample_plasticity()
    return [
        {
            "task": task,
            "task_type": environment.task_type(task),
            "step": environment.first_step(task + 1),
            f"online_{population.learner.loss.measure}": online[r],
            "online_loss": loss[r],
            **{name: values[r] for name, values in measures.items()},
        }
        for r in range(population.size)
    ]


def on_past_tasks(population: Population) -> list[list[float]]:
    """The loss's measure on the test data of all tasks before the current one, in their order, by replica."""
    by_task = [test_measure(population, task).tolist() for task in range(population.task)]
    return [[of_task[r] for of_task in by_task] for r in range(population.size)]


def at_task_end(population: Population, extra: Collection[str] = ()) -> dict[str, Tensor]:
    """The loss's measure on the task's test data and the measures of plasticity: each [R], on the CPU.

    extra: those of metrics.EXTRA_MEASURES that are wanted too.
    """
    forward, loss = population.learner.forward, population.learner.loss

    def measures(params: Tree, initial: Tree, x: Tensor, y: Tensor, key: Tensor) -> Tree:
        logits, features = forward(params, x)
        if len(x) > _MEASURED_EXAMPLES:
            places = random.subset(key, _MEASURED_EXAMPLES, len(x))
            features = {name: h[places] for name, h in features.items()}
        weights = {name: params[name] for name in initial}
        return {
            f"test_{loss.measure}": loss.mean_measure(logits, y),
            **metrics.plasticity(features, weights, initial, extra),
        }

    return population.on_test_examples(population.task, measures)


def test_measure(population: Population, task: int) -> Tensor:
    """The loss's measure on the test data of any task, current, past or to come: [R], on the CPU."""
    forward, loss = population.learner.forward, population.learner.loss

    def measures(params: Tree, initial: Tree, x: Tensor, y: Tensor, key: Tensor) -> Tree:
        return {"test": loss.mean_measure(forward(params, x)[0], y)}

    return population.on_test_examples(task, measures)["test"]


def gradients(population: Population) -> dict[str, Tensor]:
    """Measures of the loss's gradient on training images of the current task, each [R], on the CPU."""
    gradient = population.learner.gradient

    def measures(params: Tree, initial: Tree, x: Tensor, y: Tensor, key: Tensor) -> Tree:
        return metrics.gradients(gradient(params, x, y))

    return population.on_training_examples(_MEASURED_EXAMPLES, measures)
