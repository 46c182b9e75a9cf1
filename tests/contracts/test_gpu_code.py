"""What the compiler makes of a step for an H100, of every option: no GPU is needed to look at it.

What only a GPU can tell is in test_cuda.py: whether that code is right, and how fast it is.
"""

from dataclasses import dataclass

import pytest

from continual.agents.agent import Context, Step, Update
from continual.agents.base import Base
from tests import gpu_code, tiny
from tests.contracts.every import (
    AGENTS,
    every_agent,
    every_env,
    every_network,
    of_network,
)
from tests.datasets.writers import random_arrays, write_npz

_PRODUCTS = {"bmm", "baddbmm", "convolution", "convolution_backward"}
# Agents whose formula asks for more than a step has by itself, with the functions of libraries that they call
# besides.
_NEED_MORE: dict[str, set[str]] = {
    "c_chain": set(),  # the last batch once more, forwards and backwards, and its churn
    "plasticity_injection": set(),  # the last layers two more times
    "l2_er": {"_linalg_svd"},  # singular values of features
    "parseval": set(),  # W W^T of each layer
    "soft_parameter_reset": set(),  # the batch once more, forwards and backwards, and noise for each weight
    "spectral": set(),  # a power iteration for each layer
    "upgd": set(),  # a maximum over all weights, and noise for each
    "wasserstein": {"ranks"},  # of the weights
}
# A step must read its parameters twice and its initial parameters, write and read their gradients, and write
# its parameters.
_LEAST_TRAFFIC = 6


@dataclass(frozen=True)
class Scattering(Base):
    """Adds into one place from many, which a GPU does in no fixed order."""

    def after_update(self, update: Update, step: Step, context: Context) -> Update:
        bias = update.params["output.bias"]
        places = (bias * 100).long() % len(bias)
        return update._replace(params={**update.params, "output.bias": bias.index_add(0, places, bias)})


@pytest.fixture(scope="module")
def codes(images, tmp_path_factory):
    """On an MLP and images of 28x28: agents with Adam, two with SGD; networks; environments."""
    pytest.importorskip("triton", reason="code for a GPU is made for Triton, which is not installed")
    arrays = random_arrays(60, 20, (1, 28, 28), 10)
    digits = write_npz(tmp_path_factory.mktemp("data") / "digits.npz", *arrays)
    mlp = ("network=mlp", "network.hidden_sizes=[100]", "env.batch_size=16")
    configs = {agent: tiny.small(digits, *mlp, f"agent={agent}", "optimizer=adam") for agent in AGENTS}
    for agent in ("base", "l2_init"):
        configs[f"{agent} sgd"] = tiny.small(digits, *mlp, f"agent={agent}", "optimizer=sgd")
    for network in tiny.options("network"):
        # With units that are replaced, a deep network takes a minute, and has the layers of the others; one
        # convolution shows what two do.
        agent = "base" if network == "deep_convnet" else "continual_backprop"
        few = ("network.channels=[3]", "network.kernel_sizes=[5]") if network == "convnet" else ()
        configs[network] = tiny.small(images, *of_network(network), *few, f"agent={agent}")
    for env in tiny.options("env"):
        configs[env] = tiny.small(images, f"env={env}", "agent=base", "network.hidden_sizes=[9]")
    configs["scattering"] = tiny.small(digits, *mlp, "agent=base")
    configs["scattering"]["agent"] = {"_target_": "tests.contracts.test_gpu_code.Scattering"}
    return gpu_code.codes(configs)


def assert_fit_for_a_gpu(code, more=frozenset()):
    assert code.faults == []
    assert code.late == []
    assert set(code.library) <= _PRODUCTS | more
    assert code.kernels > 0


@every_agent
def test_agents(codes, agent):
    code = codes[agent]
    assert_fit_for_a_gpu(code, _NEED_MORE.get(agent, frozenset()))
    if agent in _NEED_MORE:
        assert code.launches <= 3 * codes["base"].launches
        assert code.traffic <= 2 * codes["base"].traffic
        return
    assert len(code.library) == 5  # products of the MLP's two layers, forwards and backwards
    assert code.launches <= 2 * codes["base"].launches
    assert code.traffic <= 1.5 * codes["base"].traffic


@every_network
def test_networks(codes, network):
    assert_fit_for_a_gpu(codes[network])


@every_env
def test_environments(codes, env):
    assert_fit_for_a_gpu(codes[env])


def test_little_is_read_or_written_twice(codes):
    assert _LEAST_TRAFFIC < codes["l2_init sgd"].traffic < 1.5 * _LEAST_TRAFFIC
    assert codes["l2_init"].traffic < 2 * codes["l2_init sgd"].traffic


def test_an_input_that_is_read_after_it_was_written_is_found():
    program = """
def triton_add(in_ptr0, out_ptr1, xnumel):
    tl.store(out_ptr1 + (x0), tl.load(in_ptr0 + (x0)))
''', device_str='cuda')
"""
    in_order = "    triton_add.run(arg0_1, arg1_1, 8, stream=stream0)\n"
    product = "    extern_kernels.bmm(buf0, reinterpret_tensor(arg1_1, (8, 4), (4, 1), 0), out=buf1)\n"
    for calls, late in (
        (in_order, []),
        (2 * in_order, ["arg1_1"]),
        (product + in_order, []),
        (in_order + product, ["arg1_1"]),
    ):
        assert gpu_code.written_and_late(program, calls) == ({"arg1_1"}, late)


def test_adding_up_in_no_fixed_order_is_found(codes):
    assert "tl.atomic_add" in codes["scattering"].faults
