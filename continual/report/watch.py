"""The report on a folder that is still being written, served to a browser and renewed as runs go on.

The main thread looks at the folder and makes the page, another one answers the browser: it has an answer
however long that takes. The folder is only read. A page asks every few seconds whether there is a newer one
and, if so, loads it and restores what was chosen on it (page/live.js).
"""

import hashlib
import ipaddress
import os
import sys
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

from continual.errors import DataError, UserError
from continual.report.content import Report, Section, Table, build
from continual.report.escaping import printable
from continual.report.layout import label
from continual.report.page import Live, html_page
from continual.report.runs import Runs, load
from continual.report.so_far import so_far

_FILES = ("tasks.csv", "summary.json", "config.yaml", "forgetting.csv")
_SHORTEST = 0.1  # seconds between two looks
_MOST_PORT = 65_535


def watch(folder: Path, host: str, port: int, every: float) -> None:
    """Serve the page until KeyboardInterrupt. UserError if there is no such folder or no such address."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    if not 0 <= port <= _MOST_PORT:
        raise UserError(f"--port {port}: a port is a number from 0 to {_MOST_PORT}.")
    if not _SHORTEST <= every < float("inf"):
        raise UserError(f"--every {every:g}: give at least {_SHORTEST} seconds.")
    with _server(host, port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            print(f"{server.address} shows {printable(str(folder))}; Ctrl-C ends it", flush=True)
            while True:
                began = time.monotonic()
                server.renew(folder, every)
                # Runs may train on this machine: at most half of one core is theirs to lose.
                time.sleep(max(every, time.monotonic() - began))
        finally:
            server.shutdown()


def page_of(folder: Path, live: Live) -> str:
    """The page on what a folder holds by now, with how far unfinished runs are in front."""
    try:
        runs = load(folder)
    except DataError as error:
        return html_page(Report("No results yet", [str(error)], []), live)
    return html_page(build(so_far(runs), before=_progress(runs)), live)


def version_of(folder: Path) -> str:
    """Another text whenever a run below the folder has written something."""
    digest = hashlib.sha256()
    for top, subfolders, files in os.walk(folder):
        subfolders[:] = sorted(set(subfolders) - {"wandb"})
        for name in sorted(set(files).intersection(_FILES)):
            try:
                found = os.stat(os.path.join(top, name))
            except OSError:  # replaced just now
                continue
            digest.update(repr((top, name, found.st_size, found.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]


def _progress(runs: Runs) -> list[Section]:
    """How far the runs are that have not ended, a row for each group; nothing if all have."""
    unfinished = runs.runs[runs.runs["status"] == "unfinished"]
    if unfinished.empty:
        return []
    done = runs.rows[runs.rows["status"] == "unfinished"].groupby("run")
    tasks = done.size().reindex(unfinished.index, fill_value=0)
    rows = []
    for group, members in unfinished.groupby("group"):
        number = int(str(group))
        name = runs.scores[number].name
        latest = done[name].last().reindex(members.index) if name in runs.rows else None
        fewest, most = tasks[members.index].min(), tasks[members.index].max()
        wanted = runs.configs[number].values.get("env.num_tasks", "?")
        rows.append(
            [
                label(runs.groups.loc[number], runs.shown) or "all runs",
                str(len(members)),
                (f"{most}" if fewest == most else f"{fewest} to {most}") + f" of {wanted}",
                "-" if latest is None or latest.isna().all() else f"{latest.mean():.3f}",
            ]
        )
    head = ["group", "runs", "tasks done", "score on the last of them"]
    return [Section("Runs that have not ended", tables=[Table("Progress", head, rows)])]


@dataclass(frozen=True)
class _Page:
    version: str
    body: bytes


class _Server(ThreadingHTTPServer):
    """Has the newest page that could be made."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        self.address_family = AF_INET6 if ":" in address[0] else AF_INET
        self.page = _Page("", b"")
        self.has_page = threading.Event()
        self._failed = ""
        super().__init__(address, _Handler)

    @property
    def address(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}/"

    def renew(self, folder: Path, every: float) -> None:
        """Make the page anew if something was written since."""
        version = version_of(folder)
        if version == self.page.version:
            return
        try:
            text = page_of(folder, Live(version, every))
        # Runs are being written: whatever could not be read now is asked for again, and the last page stays.
        except Exception as error:
            if version != self._failed:
                print(f"the page is not renewed: {printable(repr(error))}", file=sys.stderr, flush=True)
            self._failed = version
            if self.has_page.is_set():
                return
            version, text = "", html_page(Report("No results yet", [str(error)], []), Live("", every))
        self.page = _Page(version, text.encode())
        self.has_page.set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error."""


class _Handler(BaseHTTPRequestHandler):
    """Answers with the page, or that it is still the one which the browser has."""

    server: _Server
    timeout = 60

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        if not self._is_meant():
            self.send_error(HTTPStatus.FORBIDDEN, "This server answers to its own address alone")
            return
        if self.path.partition("?")[0] != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.server.has_page.wait()
        page = self.server.page
        tag = f'"{page.version}"'
        is_known = self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if is_known else HTTPStatus.OK)
        self.send_header("ETag", tag)
        self.send_header("Cache-Control", "no-cache")
        if not is_known:
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page.body)))
            self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if with_body and not is_known:
            self.wfile.write(page.body)

    def _is_meant(self) -> bool:
        """Whether the browser asks for this machine by its own name, where it listens to no other.

        A page from elsewhere could otherwise have its own name lead here, and read what is served.
        """
        if not _is_loopback(str(self.server.server_address[0])):
            return True
        name = self.headers.get("Host", "").strip()
        host = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        return _is_loopback(host)

    def log_message(self, format: str, *args: Any) -> None:
        """Every look of every page is not worth a line."""


def _server(host: str, port: int) -> _Server:
    try:
        return _Server((host, port))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot listen at {host}, port {port} ({reason}); choose another with --port (0: any)."
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
