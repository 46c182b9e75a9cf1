"""Many replicas as one: stack, vmap, compile; take out and put back single replicas.

A population holds every tensor of its replicas with a leading replica axis R and advances them together,
in place. Nothing here knows what an agent does, and no agent knows that it is one of many.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import vmap

from continual import cpu, random
from continual.envs.environment import Environment, Source, Task
from continual.errors import ConfigError
from continual.learner import Learner
from continual.networks.network import convolves
from continual.stepping import Capture, Stepper
from continual.tree import Tree, leaves, transform

_Leaves: TypeAlias = dict[tuple[str, ...], Tensor]
# (params, initial weights, inputs, targets, key) of one replica to numbers of it, by name.
Measures: TypeAlias = Callable[[Tree, Tree, Tensor, Tensor, Tensor], Tree]

# What is done once a task goes through the replicas in groups whose largest temporary takes so many bytes.
# On a CPU that keeps them in the cache: 8 replicas were measured 1.6 times as fast with 8 MB as with 64.
# On a GPU a group costs some hundred calls, whatever its size; about six such temporaries live at once.
_WORKING_BYTES_ON_CPU = 8 * 2**20
_WORKING_SHARE_OF_GPU = 1 / 64


class Population:
    """Replicas that share a structure and differ in seed and numbers, on one device.

    `seeds` [R] and `numbers` ({"agent": {name: values [R]}, "optimizer": ...}) say who they are.
    `task` and `step_in_task` tell where all of them stand. `compiled`, `capture` and `native` say how steps
    are repeated (`continual.stepping`).
    """

    def __init__(
        self,
        learner: Learner,
        environment: Environment,
        seeds: Sequence[int],
        numbers: Mapping[str, Mapping[str, Sequence[float]]],
        *,
        device: torch.device,
        compiled: bool,
        chunk_steps: int,
        capture: Capture | None = None,
        native: bool = True,
    ) -> None:
        self.device = device
        self.learner = learner.to(device)
        self.environment = environment.to(device)
        self.size = len(seeds)
        longest = max(environment.steps(task) for task in range(environment.num_tasks))
        self.chunk_steps = min(chunk_steps, longest)
        # The library for convolutions on a CPU sums over a group in another order than over a whole, and is
        # slow at groups; so do a batch norm, what is made for singular values and products with a vector.
        # Replicas are taken one by one, so that packing changes nothing. Native steps take them so anyway.
        is_the_librarys = (
            convolves(self.learner.network, environment.input_shape)
            or self.learner.training_network is not None
            or self.learner.decomposes
        )
        has_vectors = self.learner.multiplies_vectors or any(
            param.ndim == 2 and 1 in param.shape for param in self.learner.network.parameters()
        )
        self._one_by_one = device.type == "cpu" and (is_the_librarys or has_vectors)
        self._keys = torch.stack([random.key(seed) for seed in seeds]).to(device)
        self._numbers = {
            part: {name: torch.tensor(values, device=device) for name, values in of.items()}
            for part, of in numbers.items()
        }
        with torch.no_grad():
            params = sum(p.numel() for p in self.learner.network.parameters())
            init = vmap(self.learner.init, chunk_size=self._together(params))
            state = init(self._keys, self._numbers)
            # The step writes in place: no two entries may share memory, as params and initial do here.
            self.state: Tree = transform(torch.clone, state)
            self._env_keys = vmap(lambda key: random.stream(key, "environment"))(self._keys)
            together = self._together(self.environment.draw_size)
            draw = vmap(self.environment.draw_stream, chunk_size=together)
            self._drawn = draw(self._env_keys)
        self.task, self.step_in_task = -1, 0
        self._task: Task | None = None
        self._shuffled: tuple[int, int, Tensor] | None = None
        batches = (self.size, self.chunk_steps, environment.batch_size)
        self._places = torch.zeros(batches, dtype=torch.int64, device=device)
        # Which batch of the chunk is next, and how many steps were done in all: advanced on the device, and
        # once for each replica, as the sums over a task are: that is one kernel less for each of the two.
        self._cursor = torch.zeros(self.size, dtype=torch.int64, device=device)
        self._step = torch.zeros(self.size, dtype=torch.int64, device=device)
        self._task_start = torch.zeros(self.size, dtype=torch.int64, device=device)
        self._compiled, self._capture = compiled, capture
        self._native = native and compiled and device.type == "cpu" and not is_the_librarys
        self._keeps_native = False
        self._stepper: Stepper | None = None

    @property
    def is_native(self) -> bool:
        """Whether steps are replayed from native code (`continual.cpu`); known once a task has started."""
        return self._keeps_native if self._stepper is None else self._stepper.is_native

    @property
    def lacks_native(self) -> bool:
        """Whether steps were to be replayed from native code and are not, once a task has started."""
        return self._native and not self.is_native

    def keep_native(self, ways: Set[bool]) -> None:
        """Do steps as they were done before, where a run resumes: replayed from native code or not.

        `ways` are those of the replicas. ConfigError if they are not one, or if steps cannot be replayed
        here; whether they can be recorded is known when a task starts, which raises the same.
        """
        if self.device.type != "cpu":
            return
        if len(ways) > 1:
            raise ConfigError("the runs' steps were done in two ways, natively and not: resume them apart.")
        self._keeps_native = ways == {True}
        self._native = self._native and self._keeps_native
        self._check_native(self._native)

    def _check_native(self, native: bool) -> None:
        if self._keeps_native and not native:
            raise ConfigError(
                "the run's steps were replayed from native code, which is not possible here; resume it where "
                "there is a C++ compiler, with engine.threads=1 and engine.compile not false, or start anew."
            )

    def start_task(self, task: int) -> None:
        """Lay out a task's data for every replica, and do what is done when a task starts from its beginning.

        Online sums start at zero; then comes what the agents do, and then what the environment does to all of
        them.
        """
        self.enter_task(task, 0)
        for name, sums in self.state["online"].items():
            if name != "diverged_at":
                sums.zero_()
        if task > 0 and self.learner.sees_task_starts:
            self._let_agents_start()
        if (self.environment.output_layer, self.environment.optimizer_state) != ("keep", "keep"):
            self._reset_at_boundary()

    def enter_task(self, task: int, step: int) -> None:
        """Go to a step of a task without touching the replicas' state, as after a restore."""
        fresh = self._draw_task(task)
        if self._task is None:
            self._task = transform(torch.clone, dict(fresh))
            self._stepper = self._make_stepper(self._task)
        else:  # in place, as the step always reads the same tensors
            for name, buffer in self._task.items():
                buffer.copy_(fresh[name])
        self.task, self.step_in_task = task, step
        self._step.fill_(self.environment.first_step(task) + step)
        self._task_start.fill_(self.environment.first_step(task))

    def advance(self, steps: int) -> None:
        """Do `steps` steps of the current task, at most `chunk_steps`; nothing is read back."""
        if self._stepper is None:
            raise RuntimeError("no task has been started")
        self._lay_out_batches(steps)
        with torch.no_grad():
            self._stepper.run(steps)
        self.step_in_task += steps

    def release(self) -> None:
        """Let go of the device's memory at once; the population cannot be used any more."""
        if self._stepper is not None:
            self._stepper.release()
        self._stepper = self._task = self._shuffled = None
        self.state.clear()

    def online_measure(self) -> list[float]:
        """The mean over the current task's examples so far of the loss's measure, such as accuracy.

        By replica (synchronises).
        """
        examples = self.environment.examples(self.task, self.step_in_task)
        return [measure / examples for measure in self.state["online"]["measure"].tolist()]

    def online_loss(self) -> list[float]:
        """The mean loss over the current task's steps so far, by replica (synchronises)."""
        return [loss / self.step_in_task for loss in self.state["online"]["loss"].tolist()]

    def sample_plasticity(self) -> list[float]:
        """The mean sample plasticity over the current task's steps so far, by replica (synchronises)."""
        return [plasticity / self.step_in_task for plasticity in self.state["online"]["plasticity"].tolist()]

    def diverged_at(self) -> list[int]:
        """The step, counted from 1, whose loss was not finite, by replica; 0 for none (synchronises)."""
        steps: list[int] = self.state["online"]["diverged_at"].tolist()
        return steps

    def end_task(self) -> None:
        """Tell the agents that the task is over, if they want to know."""
        if not self.learner.sees_task_ends:
            return
        task = self._current_task()
        used = self.environment.task_size(self.task)

        def end(state: Tree, numbers: Tree, key: Tensor, env_key: Tensor, task: Task) -> Tree:
            x, y = self.environment.training_examples(task, self.task, env_key)
            return self.learner.end_task(state, numbers, x, y, random.fold(key, self.task))

        with torch.no_grad():
            after = vmap(end, chunk_size=self._together_on(used))(
                self.state, self._numbers, self._keys, self._env_keys, task
            )
        for path, leaf in leaves(self.state["agent"]):
            leaf.copy_(dict(leaves(after))[path])

    def on_test_examples(self, task: int, measures: Measures) -> dict[str, Tensor]:
        """`measures(params, initial, x, y, key)` of each replica on any task's test data: [R], on the CPU.

        Examples may lie class by class; the key, of the replica and the task, is for taking some of them.
        """
        environment = self.environment
        tensors = self._current_task() if task == self.task else self._draw_task(task)

        def examples(tensors: Task, env_key: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
            return environment.test_examples(tensors, task, env_key)

        return self._on_examples(task, tensors, examples, environment.test_size(task), measures)

    def on_training_examples(self, at_most: int, measures: Measures) -> dict[str, Tensor]:
        """The same on so many of the current task's training examples, taken at random if it has more."""
        environment, number = self.environment, self.task
        size = environment.task_size(number)

        def examples(tensors: Task, env_key: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
            places = random.subset(key, at_most, size) if at_most < size else None
            return environment.training_examples(tensors, number, env_key, places)

        used = min(at_most, size)
        return self._on_examples(number, self._current_task(), examples, used, measures)

    def replica_state(self, replica: int) -> dict[str, Tensor]:
        """A copy of one replica's state on the CPU: tensors by their path joined with "/"."""
        return {"/".join(path): leaf[replica].cpu().clone() for path, leaf in leaves(self.state)}

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        """Whether `restore` can put this state back: its entries and their shapes are this population's."""
        own = {"/".join(path): (leaf.shape[1:], leaf.dtype) for path, leaf in leaves(self.state)}
        return own == {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}

    def restore(self, replica: int, state: Mapping[str, Tensor]) -> None:
        """Put back what `replica_state` gave. KeyError or RuntimeError if it is not of this structure."""
        for path, leaf in leaves(self.state):
            leaf[replica].copy_(state["/".join(path)])

    def _on_examples(
        self,
        number: int,
        task: Task,
        examples: Callable[[Task, Tensor, Tensor], tuple[Tensor, Tensor]],
        used: int,
        measures: Measures,
    ) -> dict[str, Tensor]:
        """Measures on `used` examples of the task of this number."""

        def one(params: Tree, initial: Tree, key: Tensor, env_key: Tensor, task: Task) -> Tree:
            key = random.fold(random.stream(key, "measured images"), number)
            x, y = examples(task, env_key, key)
            return measures(params, initial, x, y, key)

        with torch.no_grad():
            found = vmap(one, chunk_size=self._together_on(used))(
                self._evaluated(), self.state["initial"], self._keys, self._env_keys, task
            )
        return {name: values.cpu() for name, values in found.items()}

    def _reset_at_boundary(self) -> None:
        """What the environment does to every agent at a task's start."""
        output_layer, optimizer_state = self.environment.output_layer, self.environment.optimizer_state

        def boundary(state: Tree, numbers: Tree, key: Tensor) -> Tree:
            key = random.fold(random.stream(key, "boundary"), self.task)
            return self.learner.boundary(state, numbers, key, output_layer, optimizer_state)

        with torch.no_grad():
            after = dict(leaves(vmap(boundary)(self.state, self._numbers, self._keys)))
        for path, leaf in leaves(self.state):
            leaf.copy_(after[path])

    def _evaluated(self) -> Tree:
        """The parameters (and buffers) to measure with."""
        return vmap(self.learner.evaluated)(self.state, self._numbers)

    def _let_agents_start(self) -> None:
        """What agents do before a task's first step, on the batches of its first epoch."""
        environment = self.environment

        def start(
            state: Tree,
            numbers: Tree,
            key: Tensor,
            env_key: Tensor,
            task: Task,
            batches: Tensor,
            step: Tensor,
        ) -> Tree:
            def batch(number: int) -> tuple[Tensor, Tensor, Tensor | None]:
                places_B, is_real_B = self._filled(batches[number])
                source = Source(environment.stored, task, places_B, env_key, step + number)
                return *environment.batch(source), is_real_B

            key = random.fold(key, self.task)
            return self.learner.start_task(state, numbers, batch, len(batches), key, step)

        with torch.no_grad():
            after = vmap(start, chunk_size=self._together_on(environment.batch_size))(
                self.state,
                self._numbers,
                self._keys,
                self._env_keys,
                dict(self._current_task()),
                self._shuffle(0),
                self._step,
            )
        for path, leaf in leaves(self.state):
            leaf.copy_(dict(leaves(after))[path])

    def _together(self, numbers: int) -> int:
        """How many replicas to work on at a time, when each has a temporary of so many 32-bit numbers."""
        if self._one_by_one:
            return 1
        room = _WORKING_BYTES_ON_CPU
        if self.device.type == "cuda":
            memory = torch.cuda.get_device_properties(self.device).total_memory
            room = int(_WORKING_SHARE_OF_GPU * memory)
        return max(1, min(self.size, room // (4 * numbers)))

    def _together_on(self, examples: int) -> int:
        """How many replicas to work on at a time, when each looks at so many examples."""
        return self._together(examples * math.prod(self.environment.input_shape))

    def _draw_task(self, number: int) -> Task:
        together = self._together(self.environment.draw_size)
        draw = vmap(lambda drawn, key: self.environment.task(drawn, key, number), chunk_size=together)
        task: Task = draw(self._drawn, self._env_keys)
        return task

    def _filled(self, places_B: Tensor) -> tuple[Tensor, Tensor | None]:
        """The places of a batch, and which of them count; None if all do.

        In a partial batch, those that are empty repeat the others.
        """
        if not self.environment.has_partial_batches:
            return places_B, None
        is_real_B = places_B >= 0
        again_B = torch.arange(len(places_B), device=places_B.device) % is_real_B.sum()
        return places_B[again_B], is_real_B

    def _make_stepper(self, task: Task) -> Stepper:
        inputs = (
            self.state,
            self._numbers,
            self._keys,
            self._env_keys,
            dict(task),
            self._places,
            self._cursor,
            self._step,
            self._task_start,
        )
        stepper = Stepper(
            self._advance,
            inputs,
            self.environment.stored,
            compiled=self._compiled,
            capture=self._capture,
            one_by_one=self._one_by_one,
            native=functools.partial(self._advance, gather=cpu.images) if self._native else None,
        )
        self._check_native(stepper.is_native)
        return stepper

    def _advance(
        self,
        state: Tree,
        numbers: Tree,
        keys: Tensor,
        env_keys: Tensor,
        task: Task,
        places: Tensor,
        cursor: Tensor,
        step: Tensor,
        task_start: Tensor,
        *stored: Tensor,
        gather: Callable[..., Tensor] | None = None,
    ) -> None:
        """One step of all replicas, written into the same tensors; `gather` is a `Source`'s."""

        def one(
            state: Tree,
            numbers: Tree,
            key: Tensor,
            env_key: Tensor,
            task: Task,
            places: Tensor,
            cursor: Tensor,
            step: Tensor,
            task_start: Tensor,
        ) -> _Leaves:
            places_B, is_real_B = self._filled(places.index_select(0, cursor.reshape(1))[0])
            x, y = self.environment.batch(Source(stored, task, places_B, env_key, step, gather))
            after = self.learner.step(state, numbers, x, y, key, step, is_real_B, task_start)
            before = dict(leaves(state))
            return {path: leaf for path, leaf in leaves(after) if leaf is not before[path]}

        changed = vmap(one)(state, numbers, keys, env_keys, task, places, cursor, step, task_start)
        for path, leaf in leaves(state):
            if path in changed:
                leaf.copy_(changed[path])
        cursor.add_(1)
        step.add_(1)

    def _current_task(self) -> Task:
        if self._task is None:
            raise RuntimeError("no task has been started")
        return self._task

    def _lay_out_batches(self, steps: int) -> None:
        """Fill the chunk's buffer with the places of its batches, from as many epochs as it spans."""
        filled = 0
        while filled < steps:
            per_epoch = self.environment.epoch_steps(self.task)
            epoch, first = divmod(self.step_in_task + filled, per_epoch)
            batches = self._shuffle(epoch)[:, first : first + steps - filled]
            self._places[:, filled : filled + batches.shape[1]] = batches
            filled += batches.shape[1]
        self._cursor.zero_()

    def _shuffle(self, epoch: int) -> Tensor:
        """The batches of an epoch of the current task, [R, batches, B]; the last one asked for is kept."""
        if self._shuffled is None or self._shuffled[:2] != (self.task, epoch):
            draw = vmap(lambda key: self.environment.shuffle(key, self.task, epoch))
            batches = draw(self._env_keys)
            self._shuffled = (self.task, epoch, batches)
        return self._shuffled[2]
