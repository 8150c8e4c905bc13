#!/usr/bin/env python3
"""The examples of README.md's serve section and of docs/serve.md, run exactly as they are printed, on port 8000.

usage: readme_examples.py NAUTILE
A fenced block marked `sh` that starts a server becomes the server of the blocks below it; other `sh` blocks must end with
0, and curl among them counts an HTTP error as one; `python` blocks run with the interpreter that NAUTILE_CLIENTS_PYTHON
names and are skipped, aloud, without it. A block that asks nano for 48 + 75 must print 123.

Port 8000 is taken in a network namespace of the test's own where the kernel allows one. Where it does not and the port is
in use, and where there is no curl, the exit code is 77.
"""
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORT = 8000
SKIPPED = 77


def blocks(text):
    """(language, source) of each fenced block that names a language."""
    return [(m[1], m[2]) for m in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)]


def section(text, title):
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not found:
        sys.exit(f"FAILED: no section {title}")
    return found[1]


def starts_server(source):
    return re.search(r"^[^#\n]*\bnautile serve\b", source, re.M) is not None


def port_is_free():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", PORT))
            return True
        except OSError:
            return False


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING


class House:
    """A folder as the commands expect to find it: build/nautile and models/ beside it, `nautile` on the path. `make` has
    nothing to do here: that it builds from a clean clone is .ci/run's to show."""

    def __init__(self, folder, nautile):
        self.folder = pathlib.Path(folder)
        for place in ("build", "bin", "home"):
            (self.folder / place).mkdir()
        (self.folder / "build/nautile").symlink_to(nautile)
        (self.folder / "bin/nautile").symlink_to(nautile)
        (self.folder / "models").symlink_to(ROOT / "models")
        (self.folder / "Makefile").write_text("all: ;\n")
        (self.folder / "home/.curlrc").write_text("fail-with-body\nsilent\nshow-error\nmax-time = 60\n")
        self.env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.env |= {"PATH": f"{self.folder}/bin:{self.env['PATH']}", "HOME": f"{self.folder}/home", "CURL_HOME": f"{self.folder}/home"}
        self.server = self.log = None

    def start(self, source):
        self.stop()
        self.log = open(self.folder / "server.log", "w+b")
        self.server = subprocess.Popen(["bash", "-euo", "pipefail", "-c", source], cwd=self.folder, env=self.env, stdout=self.log,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.time() + 60
        while time.time() < deadline and self.server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v1/health/ready", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise AssertionError("the server did not become ready:\n" + (self.folder / "server.log").read_text())

    def stop(self):
        if self.server is None:
            return
        if self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGTERM)
        try:
            self.server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
        deadline = time.time() + 5
        while not port_is_free() and time.time() < deadline:
            time.sleep(0.05)
        self.server = None
        self.log.close()

    def run(self, program, source):
        if self.server is None:
            raise AssertionError("no server was started above it")
        done = subprocess.run([*program, source], cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
        if done.returncode != 0:
            raise AssertionError(f"exit {done.returncode}: {done.stdout}{done.stderr}")
        if not done.stdout.strip():
            raise AssertionError(f"it printed nothing: {done.stderr}")
        if "48 + 75" in source and "123" not in done.stdout:
            raise AssertionError(f"no 123 in what it printed: {done.stdout}")
        return done.stdout


def main(nautile):
    python = os.environ.get("NAUTILE_CLIENTS_PYTHON")
    counted = {"server": 0, "sh": 0, "python": 0}
    skipped = 0
    for name, text in (("README.md", section((ROOT / "README.md").read_text(), "Serve")), ("docs/serve.md", (ROOT / "docs/serve.md").read_text())):
        with tempfile.TemporaryDirectory(prefix="readme-") as folder:
            house = House(folder, nautile)
            try:
                for language, source in blocks(text):
                    first = source.strip().splitlines()[0][:90]
                    try:
                        if language == "sh" and starts_server(source):
                            house.start(source)
                            counted["server"] += 1
                        elif language == "sh":
                            house.run(["bash", "-euo", "pipefail", "-c"], source)
                            counted["sh"] += 1
                        elif language == "python" and python:
                            house.run([python, "-c"], source)
                            counted["python"] += 1
                        elif language == "python":
                            skipped += 1
                            continue
                        else:
                            continue
                    except (AssertionError, subprocess.TimeoutExpired) as error:
                        sys.exit(f"FAILED: {name}: {first}\n{error}")
                    print(f"{name}: {first}: ok", flush=True)
            finally:
                house.stop()
    if not all(counted[kind] for kind in ("server", "sh")) or counted["python"] + skipped == 0:
        sys.exit(f"FAILED: examples are missing: {counted}")
    print(f"{counted['server']} servers, {counted['sh']} shell and {counted['python']} Python examples")
    if skipped:
        print(f"{skipped} Python examples skipped: set NAUTILE_CLIENTS_PYTHON to a Python with tests/clients/requirements.txt")


if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
if shutil.which("curl") is None:
    print("no curl: the examples were not run")
    sys.exit(SKIPPED)
program = str(pathlib.Path(sys.argv[1]).resolve())
if sys.argv[2:] == ["--own-network"]:
    loopback_up()
    main(program)
elif shutil.which("unshare") and subprocess.run(["unshare", "-rn", "true"], stderr=subprocess.DEVNULL).returncode == 0:
    sys.exit(subprocess.run(["unshare", "-rn", sys.executable, __file__, program, "--own-network"]).returncode)
elif port_is_free():
    main(program)
else:
    print(f"port {PORT} is in use and this kernel gives no network of one's own: the examples were not run")
    sys.exit(SKIPPED)
