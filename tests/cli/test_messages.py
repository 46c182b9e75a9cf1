"""Errors in one sentence; what the command line makes of them is in test_bad_input.py."""

import pytest
import yaml
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from continual.cli.messages import one_sentence
from continual.errors import DataError


def raised(code: str) -> Exception:
    """The error that a piece of code raises."""
    try:
        exec(code, {"OmegaConf": OmegaConf, "yaml": yaml})
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("lr"),
        AttributeError("lr"),
        TypeError("lr"),
        ValueError("lr"),
        raised("[][1]"),
        raised("int('x')"),
        raised("assert False"),
        OSError(28, "No space left on device"),
    ],
)
def test_errors_that_are_none_of_the_users(error: Exception) -> None:
    assert one_sentence(error) is None


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DataError("There is no file."), "There is no file."),
        (HydraException("Two  words\n  and  more"), "Two words and more."),
        (HydraException("One. Two."), "One; Two."),
        (ConfigCompositionException("Could not override 'a.b'.\nTo append use +a.b=1"), "a.b: no such key."),
        (
            raised("OmegaConf.to_container(OmegaConf.create({'a': '${b}'}), resolve=True)"),
            "a: Inter.*not found.",
        ),
        (raised("OmegaConf.create({'a': '${b'})"), "a: no viable alternative at input '${b'."),
        (raised("yaml.safe_load('a: [')"), "<unicode string>, line 1: this is no valid YAML (.*)."),
    ],
)
def test_errors_of_the_users(error: Exception, sentence: str) -> None:
    said = one_sentence(error)
    assert said is not None
    before, _, after = sentence.partition(".*")
    assert said.startswith(before)
    assert said.endswith(after)
    assert "\n" not in said


def test_a_refusal_behind_hydras_error_is_what_is_said() -> None:
    error = HydraException("Error in call to target 'x':\nDataError('...')\nfull_key: hydra.launcher")
    error.__cause__ = DataError("hydra.launcher.workers: must be at least 1.")
    assert one_sentence(error) == "hydra.launcher.workers: must be at least 1."


def test_an_omegaconf_error_without_a_key() -> None:
    assert one_sentence(OmegaConfBaseException("What is that")) == "What is that."
