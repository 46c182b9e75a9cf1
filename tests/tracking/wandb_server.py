"""What a W&B server must be for wandb's own client: GraphQL, the file stream and uploads, on loopback.

Tests start one, point WANDB_BASE_URL at it and look at what arrived. It can lose its connections, answer
that it is asked too often (429), and lead a sweep's agents.
"""

import contextlib
import gzip
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4
ENTITY = "tester"


@dataclass
class Run:
    """What has arrived of a run."""

    id: str
    entity: str
    project: str
    settings: dict[str, Any]
    history_lines: dict[int, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    preempting: bool = False
    started: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows that were logged, without W&B's own keys but for the step."""
        rows = [json.loads(self.history_lines[n]) for n in sorted(self.history_lines)]
        return [{k: v for k, v in row.items() if not k.startswith("_") or k == "_step"} for row in rows]

    @property
    def config(self) -> dict[str, Any]:
        """The values of the config, without W&B's own."""
        config = json.loads(self.settings.get("config") or "{}")
        return {name: entry["value"] for name, entry in config.items() if name != "_wandb"}


class WandbServer:
    """A server within `with`; `environment` is what its clients need."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.asked: Counter[str] = Counter()
        self.saved: list[dict[str, Any]] = []
        self.refuse: Callable[[str], int] = lambda path: 0
        self.lost = False
        self.sweep_config = ""
        self.lead: Callable[[dict[str, bool]], list[dict[str, Any]]] = lambda running: [{"type": "exit"}]
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.environment = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def __enter__(self) -> "WandbServer":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # GraphQL

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer a request."""
        name = next(iter(query.replace("{", " ").replace("(", " ").split()[1:2]), "")
        self.asked[name] += 1
        answer = getattr(self, f"_answer_{name}", None)
        return answer(variables) if answer else {}

    def _answer_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "viewer": {
                "id": "VXNlcjox",
                "username": ENTITY,
                "entity": ENTITY,
                "email": "",
                "flags": "{}",
                "teams": {"edges": []},
                "admin": False,
            }
        }

    def _answer_viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        """Of a query without a name, by which wandb 0.28 verifies a key."""
        return self._answer_Viewer(given)

    def _answer_GetDefaultEntity(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._answer_Viewer(given)

    def _answer_ServerFeaturesQuery(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _answer_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        entity, project = given.get("entity") or ENTITY, given.get("project") or "uncategorized"
        with self.lock:
            inserted = given["name"] not in self.runs
            run = self.runs.setdefault(given["name"], Run(given["name"], entity, project, {}))
            run.settings |= {key: value for key, value in given.items() if value is not None}
            run.started += 1
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _answer_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        owner = {"id": "RW50aXR5OjE=", "name": ENTITY}
        return {
            "model": {
                "id": "UHJvamVjdDox",
                "name": given.get("project"),
                "entity": owner,
                "bucket": run and self._bucket(run),
            }
        }

    def _answer_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/upload/{given['run']}/{name}"} for name in given["files"]
        ]
        return {"createRunFiles": {"runID": "UnVuOjE=", "uploadHeaders": [], "files": files}}

    def _bucket(self, run: Run) -> dict[str, Any]:
        rows = [run.history_lines[n] for n in sorted(run.history_lines)]
        project = {"id": "UHJvamVjdDox", "name": run.project, "entity": {"id": "RQ==", "name": run.entity}}
        return {
            "id": run.id,
            "name": run.id,
            "displayName": run.settings.get("displayName"),
            "description": "",
            "config": run.settings.get("config"),
            "sweepName": run.settings.get("sweep"),
            "project": project,
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(rows),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps(rows[-1:]),
            "eventsTail": "[]",
            "tags": [],
            "wandbConfig": json.dumps({"t": {}}),
        }

    # A sweep

    def _answer_SweepWithRuns(self, given: dict[str, Any]) -> dict[str, Any]:
        runs: dict[str, Any] = {"edges": []}
        sweep = {"id": "U3dlZXA6MQ==", "name": given["sweep"], "config": self.sweep_config, "runs": runs}
        return {"project": {"sweep": sweep}}

    def _answer_CreateAgent(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "QWdlbnQ6MQ=="}}}

    def _answer_Heartbeat(self, given: dict[str, Any]) -> dict[str, Any]:
        running = json.loads(given["runState"])
        commands = self.lead(running)
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": json.dumps(commands)}}

    def _answer_UpsertView2(self, given: dict[str, Any]) -> dict[str, Any]:
        self.saved.append(given)
        return {"upsertView": {"view": {"id": "VmlldzoxOjE=", "name": given["name"]}, "inserted": True}}

    # The file stream

    def stream(self, run_id: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Take what a run sends."""
        with self.lock:
            run = self.runs[run_id]
            for name, part in (sent.get("files") or {}).items():
                if name == "wandb-history.jsonl":
                    run.history_lines |= dict(enumerate(part["content"], part["offset"]))
                elif name == "wandb-summary.json":
                    run.summary = json.loads(part["content"][-1])
            run.preempting |= bool(sent.get("preempting"))
            if sent.get("complete"):
                run.exit_code = sent.get("exitcode")
        return {"limits": {}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that was killed is not worth a word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        state = self.server_state
        if state.lost:
            self.close_connection = True
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if status := state.refuse(self.path):
            self._answer(status, {"error": "not now"})
        elif self.path == "/graphql":
            asked = json.loads(body)
            answer = {"data": state.graphql(asked["query"], asked.get("variables") or {})}
            self._answer(200, answer)
        elif self.path.endswith("/file_stream"):
            self._answer(200, state.stream(self.path.split("/")[-2], json.loads(body)))
        else:
            self._answer(404, {})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, {})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
