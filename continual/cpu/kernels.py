"""The C++ that the compiler writes for its kernels, with what is slow in it replaced.

Inductor writes good loops, but for a few things. A row of counters, from which random numbers come, is put
together number by number: half the time of a draw for every weight. Roots take the unit that divisions need.
Logarithms, cosines and exponentials call a library from the middle of the loop. These become functions of
`native/elementwise.h`. And what `torch.where` chooses from is computed for all, as the fresh weights of the
units that an agent replaces are at each step, though hardly a unit is replaced at any: it is skipped where a
vector has nothing to choose.

All kernels of a step are compiled as one file: reading the compiler's headers takes longer than a kernel.
"""

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from continual.cpu.errors import Unavailable

_FUNCTIONS = Path(__file__).parent / "native" / "elementwise.h"
_SLOW = (
    (re.compile(r"at::vec::Vectorized<int32_t>::arange\((\w+), 1\)"), r"continual::counted(\1)"),
    (re.compile(r"\b(tmp\d+)\.sqrt\(\)"), r"continual::root(\1)"),
    (re.compile(r"\b(tmp\d+)\.log\(\)"), r"continual::logarithm(\1)"),
    (re.compile(r"\b(tmp\d+)\.cos\(\)"), r"continual::cosine(\1)"),
    (re.compile(r"\b(tmp\d+)\.exp\(\)"), r"continual::exponential(\1)"),
)
_NAME = re.compile(r"\btmp\d+\b")
_ASSIGNED = re.compile(r"\s*auto (tmp\d+) = (.*);\n")
_CHOICE = re.compile(r"decltype\((tmp\d+)\)::blendv\((tmp\d+), \1, (tmp\d+)\.template cast<float,1>\(\)\)")
_SETTINGS = {
    # A product and a sum as one operation.
    "cpp.enable_floating_point_contract_flag": "fast",
    # What an optimiser makes of five or six tensors is used at once, not stored and read again.
    "realize_reads_threshold": 6,
    # Helper processes for compiling take longer to start and to end than they save on one file.
    "compile_threads": 1,
}
_HEADER = re.compile(r"#include <[^>]+>\n")
_DECLARED = 'extern "C"  void  kernel('
# Skipping costs a test and a branch; so many operations cost more.
_WORTH_SKIPPING = 12


@dataclass(frozen=True)
class Source:
    """The C++ of a kernel: headers, and a function that takes the addresses of tensors."""

    text: str


@contextmanager
def written_only() -> Iterator[None]:
    """Within, the compiler's programs hold the `Source` of a kernel where they would hold what calls it."""
    from torch._inductor import config
    from torch._inductor.async_compile import AsyncCompile

    def kept(self: AsyncCompile, argtypes: list[str], source: str) -> Source:
        return Source(source)

    with patch.object(AsyncCompile, "cpp_pybinding", kept), config.patch(_SETTINGS):
        yield


def addresses(sources: Sequence[Source]) -> list[int]:
    """Where the kernels' functions lie, compiled `faster` or found in the compiler's cache.

    Unavailable if the compiler writes its kernels in another form.
    """
    from torch._inductor import config
    from torch._inductor.async_compile import AsyncCompile

    # The compiler binds one function to Python, as usual: nothing calls it, but it knows the file.
    text = _together(sources) + 'extern "C" void kernel() {}\n'
    with config.patch(_SETTINGS):
        binding = AsyncCompile().cpp_pybinding([], text)
    loaded = ctypes.CDLL(binding.__self__.__file__)
    return [ctypes.cast(loaded[_name(i)], ctypes.c_void_p).value or 0 for i in range(len(sources))]


def _together(sources: Sequence[Source]) -> str:
    """One file with the functions of all, each with a name of its own."""
    headers: dict[str, None] = {}
    functions = []
    for i, source in enumerate(sources):
        headers |= dict.fromkeys(_HEADER.findall(source.text))
        if source.text.count(_DECLARED) != 1:
            raise Unavailable("the compiler's kernels are declared in another way")
        declared = _DECLARED.replace("kernel", _name(i))
        functions.append(faster(_HEADER.sub("", source.text)).replace(_DECLARED, declared))
    # All of the text of ours, so that the compiler's cache knows this version of it.
    return "".join([*headers, _FUNCTIONS.read_text(), *functions])


def _name(i: int) -> str:
    return f"kernel_{i}"


def faster(source: str) -> str:
    """The C++ of a kernel with what is slow in it replaced; as it was where there is nothing to replace."""
    replaced = "".join(_chosen_late(source.splitlines(keepends=True)))
    for slow, fast in _SLOW:
        replaced = slow.sub(fast, replaced)
    return replaced


def _chosen_late(lines: list[str]) -> Iterator[str]:
    """The lines, with what only a choice needs computed where the choice is made, if there is one."""
    start = 0
    for end in range(len(lines) + 1):
        if end == len(lines) or "{" in lines[end] or "}" in lines[end]:
            yield from _statements_chosen_late(lines[start:end], lines[end:])
            yield from lines[end : end + 1]
            start = end + 1


def _statements_chosen_late(lines: list[str], later: list[str]) -> list[str]:
    """The same of lines without braces, of which each assigns to a new name or none."""
    for at in reversed(range(len(lines))):
        assigned = _ASSIGNED.fullmatch(lines[at])
        choice = assigned and _CHOICE.fullmatch(assigned[2])
        if not assigned or not choice:
            continue
        chosen, other, mask = choice.groups()
        alone = _needed_alone(lines, at, chosen, {other, mask}, later)
        if len(alone) >= _WORTH_SKIPPING:
            moved = "".join(lines[i] for i in alone)
            lines[at] = (
                f"auto {assigned[1]} = {mask}.all_zero() ? {other} : [&] {{\n{moved}"
                f"return {assigned[2]};\n}}();\n"
            )
            for i in alone:
                lines[i] = ""
    return lines


def _needed_alone(lines: list[str], at: int, wanted: str, others: set[str], later: list[str]) -> list[int]:
    """Which lines are there for `wanted` in line `at` alone, in their order; none that reads memory."""
    users: dict[str, set[int]] = {}
    for i, line in enumerate(lines):
        for name in _NAME.findall(line):
            users.setdefault(name, set()).add(i)
    alone = {at}
    for i in reversed(range(at)):
        assigned = _ASSIGNED.fullmatch(lines[i])
        if assigned is None or "ptr" in lines[i] or assigned[1] in others or _is_used(assigned[1], later):
            continue
        if users[assigned[1]] - {i} and users[assigned[1]] - {i} <= alone:
            alone.add(i)
    return sorted(alone - {at})


def _is_used(name: str, later: list[str]) -> bool:
    """Whether these lines use a name before they give it to something else."""
    word = re.compile(rf"\b{name}\b")
    for line in later:
        if f"auto {name} =" in line:
            return bool(word.search(line.partition("=")[2]))
        if word.search(line):
            return True
    return False
