"""What is composed here is what Hydra composes; a release of Hydra that changes that fails these tests."""

import string
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from continual.cli import grammar
from continual.cli.composing import Composer
from continual.config import config_folder
from continual.errors import ConfigError


def theirs(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config and Hydra's own node as Hydra composes them for these overrides."""
    composer = Composer()
    with composer.started():
        composed = hydra.compose("train", overrides, return_hydra_config=True)
        node: Any = OmegaConf.to_container(composed.hydra, resolve=False)
        own = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
        config: Any = OmegaConf.to_container(own)
    return config, node


JOBS = [
    ["agent=l2", "agent.l2_weight=0.5", "seed=3"],
    ["agent=l2", "agent.l2_weight=null", "seed=4", "wandb.tags=[a,'b c']"],
    ["agent=l2_init", "env=permuted_mnist", "optimizer.betas=[0.5,0.6]", "+wandb.job=1", "~wandb.tags"],
    ["agent=l2", "metrics={forgetting:true}", "wandb.name='x=1, y'"],
    ["agent=l2", "agent.l2_weight=0.5", "seed=5", "env/dataset=npz", "env.dataset.path=x"],
]


def test_jobs_are_what_hydra_composes() -> None:
    """Also those that share their options with an earlier one, and have values set on a copy of it."""
    composer = Composer()
    composer.swept(["agent=l2,l2_init", "seed=3,4,5", "hydra.sweep.dir=sweep"])
    for number, job in enumerate(JOBS):
        found = composer.job(job, number)
        config, node = theirs([*job, "hydra.sweep.dir=sweep"])
        resolved = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
        assert found.config == resolved
        assert found.overrides == node["overrides"]["task"] == job
        # Hydra 1.4 computes it when it is asked for.
        named = (found.hydra["job"]["override_dirname"], "${hydra_override_dirname:}")
        assert node["job"]["override_dirname"] in named
        assert found.hydra["runtime"]["choices"] == node["runtime"]["choices"]
        assert (found.hydra["job"]["num"], found.hydra["job"]["id"]) == (number, str(number))
        assert found.folder == Path("sweep") / str(number)


def test_all_jobs_of_a_sweep_have_the_same_time() -> None:
    composer = Composer()
    composer.swept(["seed=0,1"])
    name = "wandb.name=${now:%f}"
    jobs = [composer.job([f"agent={agent}", name], 0) for agent in ("l2", "l2", "base")]
    assert len({job.config["wandb"]["name"] for job in jobs}) == 1


def test_nothing_is_hidden_by_a_slower_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a release make setting values fail, that is an error, and no second composition for each job."""

    def fail(*_: object, **__: object) -> None:
        raise OmegaConfBaseException("changed")

    composer = Composer()
    composer.swept(["seed=0,1"])
    composer.job(["seed=0"], 0)
    monkeypatch.setattr(OmegaConf, "update", fail)
    with pytest.raises(ConfigError, match="changed"):
        composer.job(["seed=1"], 1)


ODD = ["a b", "it's", 'say "x"', "a\\b", "back\\'slash", "ü,[{]}=", string.punctuation.replace("$", "")]


@pytest.mark.parametrize("text", ODD)
def test_a_quoted_text_is_read_as_it_is(text: str) -> None:
    (setting,) = grammar.read_settings([f"x={grammar.quoted(text)}"])
    assert (setting.value, setting.several) == (text, False)


def test_a_folder_of_own_options_stands_beside_those_that_are_asked_for(tmp_path: Path) -> None:
    for name in ("one", "it's two, [x]"):
        (tmp_path / name / "agent").mkdir(parents=True)
        (tmp_path / name / "agent" / f"{name[:3]}.yaml").write_text("_target_: continual.agents.l2.L2\n")
    searchpath = f"hydra.searchpath=[file://{tmp_path / 'one'}]"
    for agent in ("one", "it's"[:3]):
        composer = Composer(own_folder=tmp_path / "it's two, [x]")
        composed = composer.run([f"agent={grammar.quoted(agent)}", searchpath])
        assert composed.choices["agent"] == agent


def test_settings_are_plain_values() -> None:
    texts = ["grid={lr:[1e-3,0.1],agent.kappa:[2]}", "seeds=[3,4]", "a=1,x,'b c'", "dry_run=true"]
    read = grammar.read_settings(texts)
    assert [(one.key, one.value, one.several) for one in read] == [
        ("grid", {"lr": [1e-3, 0.1], "agent.kappa": [2]}, False),
        ("seeds", [3, 4], False),
        ("a", [1, "x", "b c"], True),
        ("dry_run", True, False),
    ]
    with pytest.raises(ConfigError, match="cannot be read"):
        grammar.read_settings(["a=["])


def test_what_is_composed_for_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTINUAL_DATA_DIR", "there")
    composed = Composer().run(["agent=l2_init", "sweep=paper", "env=permuted_mnist"])
    assert composed.config["data_dir"] == "there"
    assert composed.params["seed"] == "0,1,2"
    assert composed.launcher["_target_"] == "continual.sweep.packed.PackedLauncher"
    assert composed.choices["env/dataset"] == "mnist"


PRESETS = sorted(
    str(path.relative_to(config_folder() / "experiment").with_suffix(""))
    for path in (config_folder() / "experiment").rglob("*.yaml")
)


def test_an_agent_that_is_a_network_is_that_with_every_preset_or_refused() -> None:
    """A preset has the last word: what it changes of CReLU would not be CReLU."""
    refused = {}
    for preset in PRESETS:
        try:
            composed = Composer().run([f"experiment={preset}", "agent=crelu"])
        except ConfigError as error:
            refused[preset] = str(error)
        else:
            assert composed.config["network"]["activation"] == "crelu"
    assert refused["lillo2026/permuted_mnist"] == (
        "agent=crelu: it is network.activation=crelu, which experiment=lillo2026/permuted_mnist sets to "
        "smooth_leaky; choose another agent, or give network.activation=crelu."
    )
    assert "paper" not in refused
    typed = Composer().run(["experiment=lillo2026/permuted_mnist", "agent=crelu", "network.activation=crelu"])
    assert typed.config["network"]["activation"] == "crelu"


@pytest.mark.parametrize(
    ("overrides", "group"),
    [
        (["agent=l2,l2_init"], "agent"),
        (["agent=l2", "optimizer=adam,sgd"], "optimizer"),
        (["agent=l2", "optimizer=sgd", "env=permuted_mnist,continual_imagenet"], "env"),
        (["agent=redo", "env=permuted_mnist,random_label_mnist"], "env"),
    ],
)
def test_a_grid_of_one_agent_env_and_optimizer_is_not_that_of_several(
    overrides: list[str], group: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^sweep=paper: its grid is that of one {group}, and several"):
        Composer().swept(["sweep=paper", *overrides])
    Composer().swept(["sweep=paper", *(one.split(",")[0] for one in overrides)])


def test_agents_without_a_number_to_choose_share_a_grid() -> None:
    config = Composer().swept(["sweep=paper", "agent=base,layer_norm,crelu", "env=permuted_mnist"])
    assert set(config.hydra.sweeper.params) == {"seed", "optimizer.lr"}
