import functools
import http.server
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data_dir() -> str:
    """The data folder with the real MNIST; the test is skipped where there is none."""
    data_dir = os.environ.get("CONTINUAL_DATA_DIR")
    if not data_dir:
        pytest.skip("needs the real MNIST: CONTINUAL_DATA_DIR is not set")
    if not (Path(data_dir) / "MNIST" / "raw").is_dir():
        pytest.skip("needs the real MNIST: CONTINUAL_DATA_DIR has no MNIST/raw")
    return data_dir


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request fails as it does on a machine without a network."""

    def urlopen(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


class Mirror:
    """Serves a folder over HTTP, and keeps the names asked for and the time-outs then in force."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.requests: list[str] = []
        self.timeouts: set[float | None] = set()
        mirror = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.requests.append(self.path)
                mirror.timeouts.add(socket.getdefaulttimeout())
                super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    serving = Mirror(tmp_path / "mirror")
    thread = threading.Thread(target=serving.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield serving
    serving.server.shutdown()
    serving.server.server_close()
    thread.join()
