"""What is replaced in the compiler's kernels: that it is found there, and computes the same.

The first test fails where a release of PyTorch writes its kernels otherwise.
"""

import pytest
import torch

from continual import cpu, random
from continual.cpu import kernels


@pytest.fixture
def sources(monkeypatch):
    """The C++ of kernels as it is compiled, noted as it is made."""
    noted, faster = [], kernels.faster
    monkeypatch.setattr(kernels, "faster", lambda source: (noted.append(faster(source)), noted[-1])[1])
    return noted


def replayed(step, *tensors):
    """The tensors, each with a leading axis of one replica, after one replayed step."""
    inputs = [tensor[None].clone() for tensor in tensors]
    cpu.Replay(step, inputs, []).run(1)
    return [tensor[0] for tensor in inputs]


def drawn_for_some(key, is_chosen, old, out):
    fresh = 0.5 * random.normal(key[0], out.shape[1:])
    out.copy_(torch.where(is_chosen[0, :, None], fresh, old[0])[None])


def test_what_is_slow_is_found_and_replaced(sources):
    key, old = random.key(7), torch.randn(64, 48)
    is_chosen = torch.arange(64) == 9
    _, _, _, out = replayed(drawn_for_some, key, is_chosen, old, torch.zeros(64, 48))
    replayed(lambda x: x.copy_(x.sqrt() + x.exp()), torch.rand(1000))
    text = "".join(sources)
    assert "continual::counted(" in text
    assert ".all_zero() ? " in text
    assert "::arange(tmp" not in text
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert all(f"continual::{name}(" in text for name in ("root", "logarithm", "cosine", "exponential"))
    expected = torch.where(is_chosen[:, None], 0.5 * random.normal(key, (64, 48)), old)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(out[:9], old[:9])


@pytest.mark.parametrize("chosen", ["none", "some", "all"])
@pytest.mark.parametrize("columns", [48, 37, 5])
def test_only_what_is_chosen_changes(chosen, columns):
    old = torch.randn(40, columns)
    is_chosen = {"none": torch.zeros(40), "some": torch.arange(40) % 7 == 3, "all": torch.ones(40)}[chosen]
    key = random.key(3)
    *_, out = replayed(drawn_for_some, key, is_chosen.bool(), old, torch.zeros(40, columns))
    expected = torch.where(is_chosen.bool()[:, None], 0.5 * random.normal(key, (40, columns)), old)
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [16, 1000, 4099])
def test_bits_are_the_same(count):
    key = random.key(11)
    _, out = replayed(
        lambda key, out: out.copy_(random.bits(key[0], count)[None]),
        key,
        torch.zeros(count, dtype=torch.int32),
    )
    assert torch.equal(out, random.bits(key, count))


def test_roots_are_right_to_the_last_place():
    x = torch.cat([torch.rand(4000) * 10.0 ** torch.randint(-37, 38, (4000,)), torch.zeros(16)])
    x[::100], x[1::100], x[2::100], x[3::100] = 0.0, torch.inf, torch.nan, -1.0
    (out,) = replayed(lambda x: x.copy_(x.sqrt()), x)
    torch.testing.assert_close(out, x.sqrt(), rtol=2e-7, atol=0.0, equal_nan=True)
    assert torch.equal(out[::100], x[::100].sqrt())


FUNCTIONS = {
    "log": (torch.log, torch.cat([torch.rand(20000) * 10.0 ** torch.randint(-37, 38, (20000,))])),
    "log, far": (torch.log, 3.4e38 * torch.rand(20000)),
    "log, near 1": (torch.log, 1 + 1e-3 * torch.randn(20000)),
    "cos": (torch.cos, 2 * torch.pi * torch.rand(20000)),
    "cos, far": (torch.cos, 1000 * torch.randn(20000)),
    "exp": (torch.exp, 20 * torch.randn(20000)),
    "exp, far": (torch.exp, 200 * torch.randn(20000)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_right_but_for_rounding(name):
    function, x = FUNCTIONS[name]
    x[::100], x[1::100], x[2::100], x[3::100], x[4::100] = 0.0, torch.inf, torch.nan, -1.0, -torch.inf
    (out,) = replayed(lambda x: x.copy_(function(x)), x)
    exact = function(x.double())
    near_0 = 1e-7 if "cos" in name else 1.2e-38  # smaller numbers count as 0
    torch.testing.assert_close(out.double(), exact.float().double(), rtol=4e-7, atol=near_0, equal_nan=True)


LOOP = """extern "C" void kernel()
{{
    auto tmp0 = at::vec::Vectorized<float>::loadu(in_ptr0);
    auto tmp1 = at::vec::VecMask<float,1>::from(in_ptr1);
{many}
    auto tmp30 = decltype(tmp29)::blendv(tmp0, tmp29, tmp1.template cast<float,1>());
    tmp30.store(out_ptr0);
{last}
}}
"""
MANY = [f"    auto tmp{n} = tmp{n - 1 if n > 2 else 0} + tmp{n - 1 if n > 2 else 0};" for n in range(2, 30)]


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({}, []),
        ({10: "    auto tmp10 = at::vec::Vectorized<float>::loadu(in_ptr2);"}, range(2, 11)),
        ({"last": "    tmp12.store(out_ptr1);"}, range(2, 13)),
    ],
    ids=["all is late", "memory is read in its place", "what others need is not late"],
)
def test_what_only_a_choice_needs_is_late(change, stays):
    many = [change.get(n, line) for n, line in enumerate(MANY, 2)]
    source = LOOP.format(many="\n".join(many), last=change.get("last", ""))
    early, late = kernels.faster(source).split("auto tmp30 = tmp1.all_zero() ? tmp0 : [&] {")
    for n in range(2, 30):
        assert (f"auto tmp{n} =" in early) == (n in stays)
        assert (f"auto tmp{n} =" in late) == (n not in stays)
    assert "return decltype(tmp29)::blendv(tmp0, tmp29, tmp1.template cast<float,1>());\n}();" in late


def test_little_is_left_as_it_is():
    source = LOOP.format(many="    auto tmp29 = tmp0 + tmp0;", last="")
    assert kernels.faster(source) == source
