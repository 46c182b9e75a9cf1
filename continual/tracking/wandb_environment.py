"""Which of W&B's environment variables count, and for what.

wandb lets some of them overrule what a program passes: under `wandb agent`, WANDB_RUN_ID and WANDB_SWEEP_ID
would give one id to all replicas. So W&B's process sees those that say where the server is and who asks,
and no others. WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY and WANDB_RUN_GROUP are read by `conf/train.yaml`.
"""

import os
from collections.abc import Mapping

_PREFIX = "WANDB_"
# Connection, account, and where the client keeps its own files.
_PASSED = {
    f"{_PREFIX}{name}"
    for name in (
        "API_KEY",
        "APP_URL",
        "BASE_URL",
        "CACHE_DIR",
        "CONFIG_DIR",
        "CORE_DEBUG",
        "CREDENTIALS_FILE",
        "DATA_DIR",
        "DEBUG",
        "ERROR_REPORTING",
        "HTTP_PROXY",
        "HTTP_TIMEOUT",
        "HTTPS_PROXY",
        "IDENTITY_TOKEN_FILE",
        "INSECURE_DISABLE_SSL",
        "USERNAME",
        "USER_EMAIL",
        "X_EXTRA_HTTP_HEADERS",
        "_EXTRA_HTTP_HEADERS",
    )
}
_READ_BY_THE_CONFIG = {f"{_PREFIX}{name}" for name in ("MODE", "PROJECT", "ENTITY", "RUN_GROUP")}
_ABOUT_OUTPUT = {f"{_PREFIX}{name}" for name in ("SERVICE", "SILENT", "QUIET", "CONSOLE")}
_OF_AN_AGENT = {f"{_PREFIX}{name}" for name in ("SWEEP_ID", "RUN_ID", "SWEEP_PARAM_PATH", "DIR")}


def environment(variables: Mapping[str, str], agent: bool = False) -> dict[str, str]:
    """The environment of W&B's process; with `agent`, of the one that writes the run of a sweep's agent."""
    kept = _PASSED | (_OF_AN_AGENT | {"WANDB_ENTITY", "WANDB_PROJECT"} if agent else set())
    return {
        "WANDB_ERROR_REPORTING": "false",
        **{name: value for name, value in variables.items() if not name.startswith(_PREFIX) or name in kept},
    }


def asked_by_an_agent() -> bool:
    """Whether this process is a call of `wandb agent`."""
    return "WANDB_SWEEP_ID" in os.environ


def ignored(variables: Mapping[str, str]) -> list[str]:
    """The variables that the user may have set for wandb, and that are not read."""
    agent = _OF_AN_AGENT if "WANDB_SWEEP_ID" in variables else set()
    known = _PASSED | _READ_BY_THE_CONFIG | _ABOUT_OUTPUT | agent
    return sorted(
        name
        for name in variables
        if name.startswith(_PREFIX) and not name.startswith("WANDB_AGENT_") and name not in known
    )
