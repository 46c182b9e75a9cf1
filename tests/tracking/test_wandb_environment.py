"""Which environment variables reach W&B, and which the config reads."""

import pytest

from continual.tracking.wandb_environment import environment, ignored
from tests import tiny


def test_what_says_where_the_server_is_passes_and_what_overrules_a_run_does_not() -> None:
    given = {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "WANDB_API_KEY": "key",
        "WANDB_BASE_URL": "http://here",
        "WANDB_RUN_ID": "abc",
        "WANDB_SWEEP_ID": "xyz",
        "WANDB_RESUME": "must",
        "WANDB_X_SOMETHING_NEW": "1",
    }
    passed = {name: given[name] for name in ("PATH", "HTTPS_PROXY", "WANDB_API_KEY", "WANDB_BASE_URL")}
    assert environment(given) == passed | {"WANDB_ERROR_REPORTING": "false"}
    of_agent = {name: given[name] for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID")}
    assert environment(given, agent=True) == environment(given) | of_agent
    assert environment({"WANDB_ERROR_REPORTING": "true"}) == {"WANDB_ERROR_REPORTING": "true"}


def test_what_is_not_read_is_known() -> None:
    agents = {"WANDB_SWEEP_ID": "s", "WANDB_RUN_ID": "r", "WANDB_SWEEP_PARAM_PATH": "p", "WANDB_DIR": "d"}
    read = {"WANDB_MODE": "online", "WANDB_PROJECT": "p", "WANDB_API_KEY": "k", "WANDB_SILENT": "true"}
    assert ignored(agents | read | {"WANDB_AGENT_REPORT_INTERVAL": "5", "WANDB_NAME": "n"}) == ["WANDB_NAME"]
    assert ignored({"WANDB_RUN_ID": "r", "WANDB_TAGS": "t"}) == ["WANDB_RUN_ID", "WANDB_TAGS"]


def test_the_config_reads_the_environment_and_wins_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODE", "PROJECT", "ENTITY", "RUN_GROUP"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    compose = tiny._compose.__wrapped__  # anew each time
    read = ("mode", "project", "entity", "group")
    assert [compose(())["wandb"][key] for key in read] == ["offline", "continual", None, None]

    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_RUN_GROUP", "together")
    assert [compose(())["wandb"][key] for key in read] == ["disabled", "mine", "team", "together"]
    given = compose(("wandb.mode=online", "wandb.project=given"))["wandb"]
    assert [given[key] for key in read] == ["online", "given", "team", "together"]
