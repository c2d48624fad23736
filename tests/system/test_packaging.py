"""What is installed: wheel and sdist in a fresh environment, the images' command lines, the unit.

No docker is needed: what a Dockerfile's target would run, in its environment,
is run as a plain command line from the built wheel. Building needs an index
over the network, and is done once for all tests here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile
from functools import cache
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx import __version__
from tests.system.harness import ROOT, Process, environ, wait_until

UNIT = ROOT / "deploy" / "systemd" / "exposr.service"
#: Seconds for pip; it fetches some 40 packages.
PIP = 300


@cache
def index_is_reachable() -> bool:
    """Whether pip would find its index."""
    try:
        socket.create_connection(("pypi.org", 443), 5).close()
    except OSError:
        return "PIP_INDEX_URL" in os.environ or "PIP_CONFIG_FILE" in os.environ
    return True


def pip(python: Path | str, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(
        command, env=environ({"PYTHONPATH": ""}), timeout=PIP, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def stages(text: str) -> dict[str, dict[str, object]]:
    """A Dockerfile's stages: what each adds to the stage that it comes from."""
    found: dict[str, dict[str, object]] = {}
    stage: dict[str, object] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            before = found.get(source, {"env": {}})
            stage = {**before, "env": dict(before["env"])}  # type: ignore[call-overload]
            found[name] = stage
        elif word == "ENV":
            stage["env"] |= dict(pair.split("=", 1) for pair in shlex.split(rest))  # type: ignore[operator]
        elif word == "HEALTHCHECK":
            stage["health"] = json.loads(rest.partition(" CMD ")[2])
        elif word == "ENTRYPOINT":
            stage["command"] = json.loads(rest)
        elif word == "USER":
            stage["user"] = rest
    return found


class DockerfileTests(SynchronousTestCase):
    """What can be seen of the images without building them."""

    def test_targets(self) -> None:
        """server is the default and ends with its command, so that arguments append; nobody is
        root."""
        found = stages((ROOT / "Dockerfile").read_text())
        self.assertEqual(list(found)[-1], "server")
        server, client = found["server"], found["client"]
        self.assertEqual(server["command"], ["twistd", "-n", "--pidfile=", "exposr"])
        self.assertEqual(client["command"], ["exposr"])
        self.assertEqual(server["env"]["EXPOSR_ADMIN_ENABLE"], "true")  # type: ignore[index]
        backstream = found["backstream"]
        self.assertEqual(backstream["command"], ["/backstream"])
        variables = {"BACKSTREAM_ADDR": "0.0.0.0:8000", "BACKSTREAM_LOG_FORMAT": "json"}
        self.assertEqual({**variables, **backstream["env"]}, backstream["env"])  # type: ignore[dict-item]
        # What all images are made of has the Rego engine.
        text = (ROOT / "Dockerfile").read_text()
        self.assertIn("pip install --no-cache-dir '.[rego]'", text)
        for stage in (server, client, backstream):
            self.assertNotIn(stage.get("user", "root"), ("root", "0"))


class InstalledTests(SynchronousTestCase):
    """The built distributions."""

    folder: ClassVar[tempfile.TemporaryDirectory[str] | None] = None
    scripts: ClassVar[Path]
    wheel: ClassVar[Path]
    sdist: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        if not index_is_reachable():
            raise unittest.SkipTest("needs the package index, which cannot be reached from here")
        cls.folder = tempfile.TemporaryDirectory()
        base = Path(cls.folder.name)
        source = base / "source"
        # A copy: building writes beside its sources.
        shutil.copytree(
            ROOT,
            source,
            ignore=shutil.ignore_patterns(
                ".venv", ".git", "build", "dist", "*.egg-info", "tests.*"
            ),
        )
        subprocess.run([sys.executable, "-m", "venv", base / "venv"], check=True, timeout=PIP)
        cls.scripts = base / "venv" / "bin"
        python = cls.scripts / "python"
        pip(python, "install", "build")
        subprocess.run(
            [python, "-m", "build", "--outdir", base / "dist", source],
            check=True,
            timeout=PIP,
            capture_output=True,
            env=environ({"PYTHONPATH": ""}),
        )
        (cls.wheel,) = (base / "dist").glob("*.whl")
        (cls.sdist,) = (base / "dist").glob("*.tar.gz")
        pip(python, "install", f"{cls.wheel}[rego]")

    @classmethod
    def tearDownClass(cls) -> None:
        if cls.folder is not None:
            cls.folder.cleanup()

    def run_installed(
        self, command: list[str], variables: dict[str, str] | None = None, cwd: str | None = None
    ) -> Process:
        first, *arguments = command
        plain = {"PYTHONPATH": "", "PATH": f"{self.scripts}:{os.environ['PATH']}"}
        return Process(
            self, [str(self.scripts / first), *arguments], {**plain, **(variables or {})}, cwd
        )

    def test_backstream(self) -> None:
        """The image's entry point and environment, run as a plain command line; and twistd."""
        stage = stages((ROOT / "Dockerfile").read_text())["backstream"]
        variables = dict(stage["env"])  # type: ignore[call-overload]
        del variables["PATH"]
        variables["BACKSTREAM_ADDR"] = variables["BACKSTREAM_ADDR"].replace(":8000", ":0")
        command = [word.strip("/") for word in stage["command"]]  # type: ignore[attr-defined]
        policy = Path(os.path.abspath(self.mktemp()))
        policy.write_text("package auth.server\n\nallow := true\n")
        serve = self.run_installed([*command, "serve", "-p", str(policy)], variables)
        line = json.loads(serve.wait_for_line(".*Start server.*")[0])
        self.assertRegex(line["addr"], r"^0\.0\.0\.0:\d+$")
        self.assertEqual(serve.stop(), 0)
        listed = self.run_installed(["twistd", "--help"])
        listed.wait_for_line(r"^ +backstream +A reverse-tunnel server")

    def test_contents(self) -> None:
        """The wheel has the package, its types and the plugin, and nothing of the tests."""
        names = zipfile.ZipFile(self.wheel).namelist()
        self.assertIn("exposr_tx/py.typed", names)
        self.assertIn("exposr_tx/inspector/page/page.js", names)
        self.assertIn("twisted/plugins/exposr_plugin.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        tops = {name.split("/")[0] for name in names}
        self.assertEqual(tops, {"exposr_tx", "twisted", f"exposr_tx-{__version__}.dist-info"})

    def test_sdist(self) -> None:
        """The sdist has what a packager needs: plugin, tests, scripts, benchmarks, unit."""
        with tarfile.open(self.sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for name in (
            *("twisted/plugins/exposr_plugin.py", "tests/system/harness.py", "bin/test"),
            *("benchmarks/__main__.py", ".ci/run"),
            *("deploy/systemd/exposr.service", "LICENSE", "README.md", "setup.cfg"),
        ):
            self.assertIn(name, names)

    def test_from_sdist(self) -> None:
        """twistd lists exposr when it was installed from the sdist."""
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=PIP)
            python = Path(folder, "bin", "python")
            pip(python, "install", str(self.sdist))
            listed = subprocess.run(
                [Path(folder, "bin", "twistd"), "--help"],
                env=environ({"PYTHONPATH": ""}),
                capture_output=True,
                text=True,
                timeout=60,
            )
            self.assertRegex(listed.stdout, r"(?m)^ +exposr +A reverse-tunnel server")

    def test_twistd_lists_it(self) -> None:
        """twistd --help lists exposr in a fresh environment."""
        listed = self.run_installed(["twistd", "--help"])
        self.assertEqual(listed.wait(), 0)
        self.assertIn("exposr", "\n".join(listed.out))

    def test_server_image(self) -> None:
        """The server image's command line runs in its environment, writes nothing into its
        folder, and its health check says so."""
        stage = stages((ROOT / "Dockerfile").read_text())["server"]
        variables = dict(stage["env"])  # type: ignore[call-overload]
        del variables["PATH"]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            variables["EXPOSR_ADMIN_PORT"] = str(probe.getsockname()[1])
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o555)
            command = [*stage["command"], "--api-port", "0"]  # type: ignore[misc]
            server = self.run_installed(command, variables, cwd=folder)
            server.wait_for_line('"event":"ready"')
            health = self.run_installed(list(stage["health"]), variables)  # type: ignore[call-overload]
            self.assertEqual(health.wait(), 0, health.report())
            self.assertEqual(server.stop(), 0)
            self.assertEqual(os.listdir(folder), [])
            again = self.run_installed(list(stage["health"]), variables)  # type: ignore[call-overload]
            self.assertNotEqual(again.wait(), 0)

    def test_client_image(self) -> None:
        """The client image's command line runs."""
        stage = stages((ROOT / "Dockerfile").read_text())["client"]
        asked = self.run_installed([*stage["command"], "--help"])  # type: ignore[misc]
        self.assertEqual(asked.wait(), 0, asked.report())

    def test_unit(self) -> None:
        """systemd accepts the unit, and its command line runs with its variables."""
        text = UNIT.read_text().replace("/opt/exposr/bin", str(self.scripts))
        with tempfile.TemporaryDirectory() as folder:
            unit = Path(folder, "exposr.service")
            unit.write_text(text)
            command = shlex.split(re.findall(r"(?m)^ExecStart=(.*)$", text)[0])
            variables = dict(
                pair.replace("%S/exposr", folder).split("=", 1)
                for pair in re.findall(r"(?m)^Environment=(.*)$", text)
            )
            command[0] = "twistd"
            server = self.run_installed([*command, "--api-port", "0"], variables, cwd=folder)
            server.wait_for_line('"event":"ready"')
            wait_until(Path(folder, "exposr.db").exists, "the database is made")
            self.assertEqual(server.stop(), 0)
            if shutil.which("systemd-analyze") is None:
                raise unittest.SkipTest("systemd-analyze is not installed")
            verified = subprocess.run(
                ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60
            )
            self.assertEqual((verified.returncode, verified.stderr), (0, ""))
