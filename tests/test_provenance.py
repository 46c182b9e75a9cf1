import logging
from dataclasses import asdict

import pytest

from continual import provenance
from continual.provenance import Code, Submitted


def test_the_same_code_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    submitted = Submitted()
    submitted.expect(asdict(provenance.code()))
    assert submitted.record() == asdict(provenance.code())
    assert caplog.records == []


def test_edited_code_is_said_once_and_recorded(caplog: pytest.LogCaptureFixture) -> None:
    other = {"git_commit": "1" * 40, "git_diff": "abc"}
    submitted = Submitted()
    with caplog.at_level(logging.WARNING):
        submitted.expect(other)
        submitted.expect(other)
    (record,) = caplog.records
    assert "the code was edited since these runs were submitted (then 1111111111 with changes abc" in (
        record.getMessage()
    )
    assert submitted.record() == {
        **asdict(provenance.code()),
        "code_changed": True,
        "submitted_code": other,
    }


def test_outside_a_checkout_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_git", lambda *arguments, **options: None)
    for function in (provenance.code, provenance.git_commit, provenance.uncommitted_changes):
        monkeypatch.setattr(provenance, function.__name__, function.__wrapped__)
    assert provenance.code() == Code(None, None)
