import pytest
from torch import Tensor

from continual.agents.redo import ReDo
from continual.tree import Tree
from tests.agents.plain_loop import NETWORKS, OPTIMIZERS, PlainLoop, compare

NEVER = 10**6


class PlainReDo(PlainLoop):
    """Unit by unit, from the first layer to the last."""

    def after_step(self, features: dict[str, Tensor]) -> None:
        if (self.steps_done + 1) % self.agent.recycle_period != 0:
            return
        for layer in self.network.hidden_layers:
            h = features[layer.name]
            activations = [h[:, unit].abs().mean().item() for unit in range(layer.units)]
            mean = sum(activations) / layer.units
            origin = {
                name: self.initial[f"{layer.incoming}.{name}"]
                if self.agent.reinit == "initial"
                else self.draw(layer.incoming)[name]
                for name in ("weight", "bias")
            }
            for unit in range(layer.units):
                if mean == 0 or activations[unit] / mean <= self.agent.recycle_threshold:
                    self.replace(layer, unit, origin["weight"][unit], origin["bias"][unit])


def units_cut_off(params: dict[str, Tensor], loop: PlainLoop) -> list[tuple[str, int]]:
    """The units without outgoing weights."""
    return [
        (layer.name, unit)
        for layer in loop.network.hidden_layers
        for unit in range(layer.units)
        if not params[f"{layer.outgoing}.weight"][:, unit * layer.spread : (unit + 1) * layer.spread].any()
    ]


def same_units_are_cut_off(state: Tree, loops: list[PlainLoop]) -> None:
    for r, loop in enumerate(loops):
        found = {name: param[r] for name, param in state["params"].items()}
        assert units_cut_off(found, loop) == units_cut_off(loop.network.state_dict(), loop)


@pytest.mark.parametrize(
    ("network", "optimizer", "reinit"),
    [
        ("mlp", "sgd", "initial"),
        ("mlp", "adam", "sample"),
        ("mlp_with_norm", "adam", "initial"),
        ("convnet", "sgd", "sample"),
        ("convnet", "adam", "initial"),
    ],
)
def test_equals_a_plain_loop(network: str, optimizer: str, reinit: str) -> None:
    agents = [ReDo(period, threshold, reinit) for period, threshold in [(5, 0.0), (20, 0.1), (20, 0.6)]]
    loops = compare(
        NETWORKS[network](), agents, OPTIMIZERS[optimizer], PlainReDo, check=same_units_are_cut_off
    )
    for loop in loops:
        assert len(loop.replaced) >= 5
    busiest = [(layer, unit) for _, layer, unit in loops[-1].replaced]
    assert {layer for layer, _ in busiest} == {layer.name for layer in loops[-1].network.hidden_layers}
    assert len(busiest) > len(set(busiest))


@pytest.mark.parametrize("reinit", ["initial", "sample"])
@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_recycles_a_layer_that_is_dead_as_a_whole(network: str, reinit: str) -> None:
    def kill(state: Tree) -> None:
        state["params"][f"{dead.incoming}.bias"].fill_(-100.0)

    net = NETWORKS[network]()
    dead = net.hidden_layers[1]
    loops = compare(net, [ReDo(4, 0.0, reinit)], OPTIMIZERS["sgd"], PlainReDo, begin=kill, steps=20)
    first = [unit for step, layer, unit in loops[0].replaced if step == 3 and layer == dead.name]
    assert first == list(range(dead.units))


def test_recycles_nothing_before_the_period_ends() -> None:
    agents = [ReDo(recycle_period=NEVER, recycle_threshold=1e9)]
    assert compare(NETWORKS["mlp"](), agents, OPTIMIZERS["sgd"], PlainLoop, steps=5)[0].replaced == []
