"""The programs under measurement: started on one core each, read through /proc, ended by process id."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEASURED_CORE, LOAD_CORE = "0", "1"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """The run cannot be trusted, and says why."""


class Program:
    """A child process, pinned to a core."""

    def __init__(self, name: str, command: list[str], core: str, directory: Path, settings: dict[str, str] | None = None):
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.output = directory / f"{name}.out"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLGATE_", "OPENAI_"))}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                ["taskset", "--cpu-list", core, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=environment | (settings or {}),
            )

    def wait_for(self, pattern: str) -> str:
        """The first group of `pattern` in what it prints."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = re.search(pattern, self.text())
            if found:
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise Failed(f"{self.name} did not start:\n{self.text()}")

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def processes(self) -> list[int]:
        """It and its children (nginx works in a child)."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu_seconds(self) -> float:
        """Processor time of all threads, in user and system."""
        ticks = 0
        for pid in self.processes():
            # The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND

    def memory_kib(self, field: str) -> int:
        """`VmRSS`, or `VmHWM`, its highest value so far."""
        total = 0
        for pid in self.processes():
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[1])
        return total

    def stop(self) -> None:
        for signal_number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            if self.process.poll() is None:
                self.process.send_signal(signal_number)
                try:
                    self.process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue


def look_alike(program: Path, directory: Path, *options: str) -> tuple[Program, str]:
    """The upstream; returns it and its host:port."""
    command = [str(program), "simulate", "--listen", "127.0.0.1:0", *options]
    started = Program("look-alike", command, LOAD_CORE, directory)
    return started, started.wait_for(r"http://(127\.0\.0\.1:\d+)/v1")


class Gateway(Program):
    """`tollgate serve` with a key whose limits no load reaches."""

    def __init__(self, program: Path, directory: Path, upstream: str):
        self.admin_key = secrets.token_urlsafe(48)
        settings = {
            "TOLLGATE_LISTEN": "127.0.0.1:0",
            "TOLLGATE_ADMIN_LISTEN": "127.0.0.1:0",
            "TOLLGATE_DATA_DIR": str(directory / "data"),
            "TOLLGATE_UPSTREAM_URL": f"http://{upstream}/v1",
            "TOLLGATE_UPSTREAM_KEY": "sk-look-alike",
            "TOLLGATE_ADMIN_KEY": self.admin_key,
            "TOLLGATE_MODELS_DIR": str(HERE / "models"),
            "TOLLGATE_SHUTDOWN_GRACE_S": "1",
        }
        super().__init__("gateway", [str(program), "serve"], MEASURED_CORE, directory, settings)
        self.admin = self.wait_for(r"http://(127\.0\.0\.1:\d+)/v1/organization")
        self.address = self.wait_for(r"calls +http://(127\.0\.0\.1:\d+)/v1")
        self.project = self.post("projects", {"name": "bench", "tier": "tier5"})["id"]
        account = self.post(f"projects/{self.project}/service_accounts", {"name": "bench"})
        self.key = account["api_key"]["value"]

    def post(self, path: str, body: dict) -> dict:
        return self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None = None) -> dict:
        headers = {"Authorization": f"Bearer {self.admin_key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.admin}/v1/organization/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def settled(self) -> int:
        """Requests that ended as they should: completed, and with the upstream's own word on their usage."""
        wanted = {'outcome="completed"', 'basis="reported"'}
        for name, value in self.metrics().items():
            labels = re.fullmatch(r"tollgate_requests_settled_total\{(.*)\}", name)
            if labels and set(labels[1].split(",")) == wanted:
                return int(value)
        return 0

    def wait_until_all_is_written(self) -> None:
        """Until every request is settled and the ledger holds the whole journal."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            metrics = self.metrics()
            if metrics["tollgate_open_admissions"] == 0 and metrics["tollgate_ledger_lag_bytes"] == 0:
                return
            time.sleep(0.05)
        raise Failed("the ledger did not catch up within 30 s")

    def requests_in_the_ledger(self) -> int:
        page = self._ask(f"usage/completions?start_time={int(time.time()) - 86_400}&project_ids={self.project}")
        return sum(result["num_model_requests"] for bucket in page["data"] for result in bucket["results"])


def nginx(directory: Path, upstream: str, *, buffering: bool) -> tuple[Program, str]:
    """nginx as a reverse proxy; returns it and its host:port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    directory.mkdir(parents=True, exist_ok=True)
    text = (HERE / "nginx.conf").read_text()
    values = {"DIR": str(directory), "UPSTREAM": upstream, "LISTEN": listen, "BUFFERING": "on" if buffering else "off"}
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    configuration = directory / "nginx.conf"
    configuration.write_text(text)
    started = Program("nginx", ["nginx", "-p", str(directory), "-c", str(configuration)], MEASURED_CORE, directory)
    host, port = listen.split(":")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and started.process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return started, listen
        time.sleep(0.05)
    raise Failed(f"nginx did not start:\n{started.text()}")


def load(address: str, key: str, work, requests: int, body_file: Path) -> None:
    """Runs wrk until `requests` requests are answered, every one of them right, or fails."""
    command = [
        *("taskset", "--cpu-list", LOAD_CORE, "wrk", "--threads", "1", "--connections", str(work.connections)),
        *("--duration", "120s", "--timeout", "60s", "--script", str(HERE / "load.lua")),
        *(f"http://{address}/v1/chat/completions", "--"),
        *(str(requests), str(body_file), key, work.needle, work.ending),
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if line == "finished\n":
                process.send_signal(signal.SIGINT)
    values = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    expected = {"completed": str(requests), "wrong": "0", "non_2xx": "0", "broken": "0"}
    if any(values.get(name) != value for name, value in expected.items()):
        raise Failed(f"{requests} requests to {address}: {values or lines}")
