"""The report on a folder that is still being written, served by the command as a user starts it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from continual.cli.sweep_command import main
from continual.report.page import Live
from continual.report.watch import page_of, version_of

from .conftest import CONFIG, L2_INIT, Write
from .test_page import chromium  # noqa: F401

ROOT = Path(__file__).parents[2]


class Watched:
    """`sweep.py watch` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), "watch", str(folder)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--every", "0.2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:(\d+)/) shows ", line)
        assert found, line
        self.address, self.port = found[1], int(found[2])

    def ask(self, method: str = "GET", path: str = "/", **headers: str) -> tuple[HTTPResponse, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, headers={name.replace("_", "-"): of for name, of in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read().decode()

    def renewed(self, tag: str | None, seconds: float = 60) -> tuple[str | None, str]:
        """The first page with another tag."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer, text = self.ask()
            if answer.headers["ETag"] != tag:
                return answer.headers["ETag"], text
            time.sleep(0.1)
        raise AssertionError("the page was not renewed")

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C: the exit status and what it complained of."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    (tmp_path / "sweep").mkdir()
    one = Watched(tmp_path / "sweep")
    yield one
    one.process.kill()
    one.process.communicate()


def test_a_page_is_served_and_renewed_until_ctrl_c(
    watched: Watched, write_run: Write, tmp_path: Path
) -> None:
    answer, text = watched.ask()
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "no run below" in text

    write_run("sweep/0")
    half = write_run("sweep/1", 1, status=None)
    (half / "tasks.csv").write_text((half / "tasks.csv").read_text() + "3,")
    (write_run("sweep/2", 2) / "summary.json").write_text('{"status": "comp')
    before = state(tmp_path)
    tag, text = watched.renewed(answer.headers["ETag"])
    while "Total average online accuracy" not in text or "is damaged" not in text:  # as it was written
        tag, text = watched.renewed(tag)
    assert "3 of 3" in text

    assert watched.ask(If_None_Match=tag)[0].status == 304
    head, nothing = watched.ask("HEAD")
    assert (head.headers["ETag"], head.headers["Content-Length"], nothing) == (
        tag,
        str(len(text.encode())),
        "",
    )
    assert watched.ask(path="/0/tasks.csv")[0].status == 404
    assert watched.ask(Host=f"elsewhere.example:{watched.port}")[0].status == 403

    assert watched.interrupt() == (0, "")
    assert state(tmp_path) == before


def test_what_is_chosen_on_the_page_is_kept_as_it_is_renewed(
    watched: Watched,
    write_run: Write,
    chromium,  # noqa: F811
) -> None:
    for seed in range(2):
        measures = {"srank": [3, 2, 1]}
        write_run(f"sweep/base{seed}", seed, measures=measures)
        agent = {"nodes": {"agent": L2_INIT}, "options": {"agent": "l2_init"}}
        write_run(f"sweep/init{seed}", seed, measures=measures, **agent)
    tab = chromium.new_page()
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(watched.address)
    box = tab.locator("aside li", has_text="L2 Init").locator("input")
    box.wait_for(timeout=60_000)
    box.uncheck()
    tab.locator("select[data-parameter=measure]").select_option(label="srank")
    write_run("sweep/base2", 2)
    tab.locator("#runs ~ details td", has_text="base2").first.wait_for(state="attached", timeout=60_000)
    assert not tab.locator("aside li", has_text="L2 Init").locator("input").is_checked()
    assert tab.locator("aside li", has_text="Plain").locator("input").is_checked()
    chosen = tab.locator("select[data-parameter=measure]")
    assert chosen.evaluate("select => select.selectedOptions[0].text") == "srank"
    assert tab.evaluate("state.shown.length") == 1
    assert complaints == []
    watched.interrupt()
    tab.wait_for_function("() => document.body.classList.contains('stale')", timeout=60_000)
    tab.close()


def test_unfinished_runs_are_in_front(write_run: Write, tmp_path: Path) -> None:
    nodes = {"env": {**CONFIG["env"], "num_tasks": 9}}
    write_run("sweep/0", 0, (0.4, 0.5), status=None, nodes=nodes)
    write_run("sweep/1", 1, (0.4,), status=None, nodes=nodes)
    text = page_of(tmp_path / "sweep", Live("v1", 5))
    row = re.search(r"<tr>\s*<th[^>]*>Plain training</th>(.*?)</tr>", text, re.DOTALL)
    assert row
    assert re.findall(r"<td>(.*?)</td>", row[1]) == ["2", "1 to 2 of 9", "0.450"]
    assert "1 group still training" in text
    assert 'data-chart="curves"' in text
    assert '<script data-version="v1" data-every="5">' in text


def test_the_version_changes_as_files_do(write_run: Write, tmp_path: Path) -> None:
    versions = [version_of(tmp_path)]
    run = write_run("sweep/0", status=None)
    versions.append(version_of(tmp_path))
    (run / "summary.json").write_text(json.dumps({}))
    versions.append(version_of(tmp_path))
    assert len(set(versions)) == 3
    (run / "checkpoint.pt").write_text("")
    assert version_of(tmp_path) == versions[-1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["missing"], "no such folder."),
        ([".", "--port", "70000"], "a port is a number from 0 to 65535."),
        ([".", "--every", "0"], "give at least 0.1 seconds."),
        ([".", "--every", "nan"], "give at least 0.1 seconds."),
        ([".", "--host", "256.0.0.1"], "choose another with --port (0: any)."),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch, capsys, arguments: list[str], complaint: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["watch", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(complaint)


def test_a_port_in_use(tmp_path: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["watch", str(tmp_path), "--port", str(port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot listen at 127.0.0.1, port {port} (Address already in use)" in line
