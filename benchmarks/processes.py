"""The programs of a run: nginx, our server and clients, targets, relay, and load generators.

Everything lives in one temporary directory and on free loopback ports, and is
gone when the ``with`` block ends, on Ctrl-C too.
"""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
DOMAIN = "localhost"
GIB = 1 << 30
# Seconds that a program may take until it answers.
START_TIMEOUT = 20.0
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

# What the script ``exposr`` does, wherever the package is installed.
CLIENT = (sys.executable, "-c", "from exposr_tx.scripts import exposr; exposr()")
V2_CLIENT = (sys.executable, "-m", "benchmarks.v2_client")

COMMON = """\
{user}
daemon off;
worker_processes 1;
pid {directory}/{name}.pid;
error_log {directory}/{name}.err warn;
events {{ worker_connections 8192; }}
http {{
  client_body_temp_path {directory}/{name}-body;
  proxy_temp_path {directory}/{name}-proxy;
  fastcgi_temp_path {directory}/{name}-fcgi;
  uwsgi_temp_path {directory}/{name}-uwsgi;
  scgi_temp_path {directory}/{name}-scgi;
  sendfile on;
  default_type text/plain;
  {body}
}}
"""

TARGET = """\
  access_log off;
  keepalive_requests 100000000;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {directory}/www;
    location = /small {{ return 200 "Hello from the target of the benchmark, about a hundred bytes
of text, so that a body is there.\\n"; }}
    location / {{ }}
  }}
"""

YARDSTICK = """\
  access_log {directory}/{name}.log;
  keepalive_requests 100000000;
  upstream target {{ server 127.0.0.1:{target}; keepalive 128; keepalive_requests 100000000; }}
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 16; }}
  upstream echo {{ server 127.0.0.1:{echo}; }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port} backlog=4096 default_server;
    server_name bench.localhost;
    location / {{ proxy_pass http://target; }}
  }}
  server {{
    listen 127.0.0.1:{port};
    server_name origin.localhost;
    location / {{ proxy_pass http://origin; }}
    location /events {{ proxy_pass http://origin; proxy_buffering off; }}
  }}
  server {{
    listen 127.0.0.1:{port};
    server_name echo.localhost;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection upgrade;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_read_timeout 1h;
    location / {{ proxy_pass http://echo; }}
  }}
"""


class Missing(Exception):
    """Something that the benchmark needs is not there; the message names the remedy."""


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes have used: CPU seconds so far, and resident bytes now."""

    cpu: float
    memory: int


class Program:
    """A process that runs, with its children, and a log of what it printed."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    def pids(self) -> list[int]:
        """The process and its children (nginx has its worker there)."""
        pid = self._process.pid
        children: list[int] = []
        # A thread of the program's may have started them.
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                children += map(int, thread.read_text().split())
        return [pid, *children]

    def usage(self) -> Usage:
        """CPU time and memory, from /proc."""
        cpu, memory = 0.0, 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(fields[11]) + int(fields[12])) / TICKS
            memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        return Usage(cpu, memory)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    def tell(self, line: str) -> None:
        """Write a line to its input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to its whole group after five seconds."""
        if self.running:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()


class Programs:
    """All programs of a run. A context manager: leaving it ends them all."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="exposr-bench-"))
        self._running: list[Program] = []
        self._numbers = itertools.count()

    def __enter__(self) -> Programs:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (65536, max(hard, 65536)))
        except (OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        for program in reversed(self._running):
            program.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def environ(self) -> dict[str, str]:
        """What every program gets; modules are compiled once, as those of an installed package."""
        unwanted = ("EXPOSR_", "PYTHONDONTWRITEBYTECODE")
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(unwanted)},
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "XDG_CONFIG_HOME": str(self.directory / "config"),
        }

    def start(self, name: str, command: Sequence[str | Path], told: bool = False) -> Program:
        """Run a command in a session of its own, its output in a file.

        :param told: whether its input will come from :meth:`Program.tell`.
        """
        log = self.directory / f"{name}-{next(self._numbers)}.out"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE if told else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=self.environ,
                start_new_session=True,
            )
        program = Program(name, process, log)
        self._running.append(program)
        return program

    def python(
        self, name: str, module: str, *arguments: str | int | float, told: bool = False
    ) -> Program:
        """Run one of our modules, ``python -m``."""
        return self.start(name, [sys.executable, "-m", module, *map(str, arguments)], told)

    def answer(self, *command: str | Path, patience: float = 60.0) -> str:
        """Run a command to its end; gives its output, raises RuntimeError when it fails."""
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=patience, cwd=self.directory,
            env=self.environ, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command[-1]}: {done.stderr[-500:] or done.returncode}")
        return done.stdout

    def run_python(self, module: str, *arguments: str | int | Path) -> str:
        """Run one of our modules to its end; gives its output."""
        return self.answer(sys.executable, "-m", module, *map(str, arguments))

    def stop(self, program: Program) -> None:
        """End one program before the others."""
        program.stop()
        self._running.remove(program)

    # What a run is made of.

    def nginx(self, name: str, body: str, **ports: int) -> Program:
        """An nginx with one worker on ``ports['port']``."""
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if binary is None:
            raise Missing("nginx is not installed: apt-get install nginx-light")
        text = COMMON.format(
            user="user root;" if os.geteuid() == 0 else "",
            directory=self.directory,
            name=name,
            body=body.format(directory=self.directory, name=name, **ports),
        )
        config = self.directory / f"{name}.conf"
        config.write_text(text)
        program = self.start(name, [binary, "-p", self.directory, "-c", config])
        wait_for_port(program, ports["port"])
        return program

    def target(self, port: int) -> Program:
        """The nginx that all traffic ends at: /small, and /large of 1 GiB (a sparse file)."""
        www = self.directory / "www"
        www.mkdir()
        with (www / "large").open("wb") as large:
            large.truncate(GIB)
        return self.nginx("target", TARGET, port=port)

    def yardstick(self, name: str, port: int, target: int, origin: int, echo: int) -> Program:
        """nginx as a plain reverse proxy: no tunnel, an access log as installed."""
        return self.nginx(name, YARDSTICK, port=port, target=target, origin=origin, echo=echo)

    def origin(self, port: int) -> Program:
        """The program that swallows uploads and sends events."""
        program = self.python("origin", "benchmarks.origin", port)
        wait_for_port(program, port)
        return program

    def echo(self, port: int) -> Program:
        """The program that echoes websocket messages."""
        program = self.python("echo", "benchmarks.echo", port)
        wait_for_port(program, port)
        return program

    def server(self, port: int, *options: str | Path) -> Program:
        """Our server with default options and those that are given, its log in a file."""
        ready = self.directory / f"ready-{port}"
        program = self.start(
            "server",
            [
                *(str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "exposr"),
                *("--api-port", str(port), "--allow-registration"),
                *("--ingress-http-url", f"http://{DOMAIN}:{port}"),
                *("--ready-file", str(ready)),
                *options,
            ],
        )
        wait_until(program, ready.exists, "the ready file")
        return program

    def policies(self, name: str, text: str) -> Path:
        """A file of policies; all clients may connect."""
        path = self.directory / f"{name}.rego"
        path.write_text(f"package auth.server\n\n{text}\n")
        clients = self.directory / "clients.rego"
        clients.write_text("package auth.client\n\nallow := true\n")
        return path

    def client(
        self,
        name: str,
        server: int,
        target: int,
        native: bool = True,
        options: Sequence[str] = (),
    ) -> Program:
        """Our client, asked to connect a tunnel ``name`` to the target; or one for v2 only."""
        return self.start(
            f"client-{name}",
            [
                *(CLIENT if native else V2_CLIENT),
                *("-s", f"http://127.0.0.1:{server}"),
                *("tunnel", "connect", name, f"http://127.0.0.1:{target}"),
                *options,
            ],
        )

    def relay(self, to: int, delay: float) -> tuple[Program, int]:
        """A relay that adds ``delay`` seconds each way, and its port."""
        port = free_port()
        program = self.python(
            "relay", "tests.system.relay", "--to", f"127.0.0.1:{to}", "--port", port,
            "--delay", delay,
        )  # fmt: skip
        wait_for_port(program, port)
        return program, port


def wait_until(
    program: Program, holds: Callable[[], bool], what: str, patience: float = START_TIMEOUT
) -> None:
    """Ask a condition until it holds; raises Missing when the program ends or takes too long."""
    deadline = time.monotonic() + patience
    while not holds():
        if not program.running:
            raise Missing(f"{program.name} ended at its start:\n{program.output()[-2000:]}")
        if time.monotonic() > deadline:
            raise Missing(f"{program.name}: no {what}:\n{program.output()[-2000:]}")
        time.sleep(0.02)


def wait_for_port(program: Program, port: int) -> None:
    """Until something accepts on the port."""

    def accepts() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    wait_until(program, accepts, f"listener on port {port}")
