"""The documentation's table of methods: from the options, and from speeds and studies where there are any."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from continual.report.cli import write_report

from .conftest import CONFIG, L2_INIT, Write

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(table: str) -> dict[str, list[str]]:
    """The cells behind the first, by the method in the first; the heads are those of `agent=`."""
    lines = [line[1:-1].split("|") for line in table.splitlines() if line.startswith("|") and "`" in line]
    return {line[0].split("`")[1]: [cell.strip() for cell in line[1:]] for line in lines}


def test_every_method_is_there_with_its_idea_its_source_and_what_it_needs(
    generate: ModuleType, tmp_path: Path
) -> None:
    found = rows(generate.methods(generate.measured_in(tmp_path)))
    assert [*found] == ["agent=", *generate.options("agent")]
    assert found.pop("agent=") == ["idea", "source", "needs"]
    for idea, _, _ in found.values():
        assert len(idea) > 10
        assert not any(part in idea for part in ("20", "et al", "boundaries"))
    assert found["dash"][1:] == ["[Shin et al. 2024](https://arxiv.org/abs/2410.23495)", "boundaries †"]
    assert found["redo"][1:] == ["Sokar et al. 2023", "units"]
    assert found["normalize_and_project"][2] == "`network.layer_norm=true`"
    assert found["plasticity_injection"][2] == "`network.injectable=2`"
    assert found["l2_init_plus_ewc"][2] == "boundaries †"
    assert found["l2"] == ["L2: regularise towards zero", "", ""]


def test_speeds_and_studies_add_their_columns(generate: ModuleType, write_run: Write, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "speed").mkdir(parents=True)
    (results / generate.SPEEDS).write_text(
        "section,what,replicas,replica_steps_per_second,against,ratio,ratio_low,ratio_high\n"
        "agents,base,1,9000,plain loop,5,4,6\nagents,l2,1,8000,base,0.87,0.8,0.9\n"
        "agents,l2,8,8000,base,0.5,0.4,0.6\nnetworks,l2,1,8000,base,0.3,0.3,0.3\n"
    )
    for seed in range(2):
        write_run(f"sweep/{seed}", seed, (0.5, 0.6, 0.7))
        for strength, accuracy in ((0.01, 0.8), (0.1, 0.3)):
            write_run(
                f"sweep/l2_init-{strength}-{seed}",
                seed,
                (accuracy,) * 3,
                options={"agent": "l2_init"},
                nodes={"agent": {**L2_INIT, "l2_weight": strength}},
            )
    write_report([tmp_path / "sweep"], results / "permuted", data=True)
    # One stream more, and a study has no score of a method.
    write_run("sweep/other", 0, options={"env": "other"}, nodes={"env": {**CONFIG["env"], "num_tasks": 9}})
    write_report([tmp_path / "sweep"], results / "two_streams", data=True)
    errors = {"score_name": "online_squared_error", "higher_is_better": False, "score": 1.25}
    write_run("errors", 0, measures={"online_squared_error": (1.0, 1.5, 1.25)}, **errors)
    write_report([tmp_path / "errors"], results / "regression", data=True)
    measured = generate.measured_in(results)
    found = rows(generate.methods(measured))
    assert found["agent="][3:] == ["speed", "permuted", "regression"]
    assert found["l2"][3:] == ["0.87", "", ""]
    assert found["base"][3:] == ["1", "0.600", "1.250 ↓"]
    assert found["l2_init"][3:] == ["", "0.800", ""]
    page = generate.results_of("l2_init", measured)
    assert "| [permuted](../../results/permuted/README.md) | 0.800 | 0.600 |" in page
    assert "speed" not in page
    assert generate.results_of("l2", measured).endswith("| speed on a CPU | 0.87 | 1 |")
    assert generate.results_of("redo", measured) == ""
