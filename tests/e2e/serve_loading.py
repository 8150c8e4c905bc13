#!/usr/bin/env python3
"""The server while its model loads: the port is open, probes and refusals say how far it is, and a load that fails ends it.

usage: serve_loading.py NAUTILE NANO_DIRECTORY

A load is held still with a lease on one of its files: who opens it waits until the lease is given back. Where the file
system has none, the tests end with 77 (skipped).
"""
import fcntl
import os
import pathlib
import shutil
import signal
import sys
import tempfile

from serve_harness import Server, chat, check, eventually, run_all

NANO = pathlib.Path(sys.argv[2])


class Held:
    """A copy of nano, one of whose files cannot be opened yet."""

    def __init__(self, file):
        self.folder = tempfile.TemporaryDirectory()
        for path in NANO.iterdir():
            shutil.copy(path, self.folder.name)
        self.path = f"{self.folder.name}/{file}"
        self.descriptor = os.open(self.path, os.O_RDWR)
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent to the holder when somebody wants to open it
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            print(f"skipped: no leases here: {error}")
            sys.exit(77)

    def release(self, text=None):
        if text is not None:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, text, 0)
        fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.descriptor)
        self.folder.cleanup()


def loading(server):
    return server.get("/v1/health/ready").json().get("loading", {})


def progress(nautile):
    """Live at once, ready when loaded; meanwhile every refusal says how far it is and when to come back."""
    # The checkpoint opened, its weights arranged, the tokenizer waited for.
    with Held("tokenizer.json") as held, Server(nautile, backend="engine", model=held.folder.name, wait=False) as server:
        eventually(lambda: loading(server).get("percent") == 100, 20, "the weights are in place")
        check(server.get("/v1/health/live").status == 200, "live")
        answer = server.get("/v1/health/ready")
        body = answer.json()
        check(answer.status == 503 and body["status"] == "loading" and 1 <= int(answer.headers["retry-after"]) <= 60, f"{answer.status} {body} {answer.headers}")
        part = body["loading"]
        check(part["phase"] and part["done_bytes"] == part["total_bytes"] > 100000 and part["seconds"] >= 0, f"{part}")
        check(part["phase"] in body["message"] and "100%" in body["message"], f"{body}")
        for path, request in (("/v1/chat/completions", chat()), ("/v1/completions", {"model": "nautile", "prompt": "x"}), ("/v1/responses", {"model": "nautile", "input": "x"}), ("/tokenize", {"prompt": "x"})):
            answer = server.post(path, request)
            error = answer.json()["error"]
            check(answer.status == 503 and error["code"] == "model_loading" and int(answer.headers["retry-after"]) >= 1, f"{path}: {answer.status} {error}")
            check(error["loading"]["percent"] == 100 and part["phase"] in error["message"], f"{path}: {error}")
        answer = server.post("/v1/messages", {**chat(), "max_tokens": 5})
        error = answer.json()["error"]
        check(answer.status == 503 and error["type"] == "overloaded_error" and error["details"]["loading"]["percent"] == 100, f"{error}")
        check(server.get("/v1/models").status == 503 and server.get("/health").status == 503, "neither a model nor health")
        check(server.get("/v1/status").json()["state"] == "loading" and server.get("/v1/status").json()["loading"]["phase"] == part["phase"], "status")
        check(server.metric("nautile_ready") == 0, "the gauge")
        held.release()
        eventually(lambda: server.get("/v1/health/ready").status == 200, 20, "ready")
        check("loading" not in server.get("/v1/health/ready").json() and server.get("/v1/status").json()["loading"] is None, "nothing is loading any more")
        check(server.post("/v1/chat/completions", chat("hello", max_tokens=5)).status == 200 and server.metric("nautile_ready") == 1, "it serves")
        check(server.stop() == 0, "a clean end")
    # Before there are bytes to count.
    with Held("config.json") as held, Server(nautile, backend="engine", model=held.folder.name, wait=False) as server:
        part = loading(server)
        check(part["phase"] == "opening" and "percent" not in part, f"{part}")
        held.release()
        eventually(lambda: server.get("/v1/health/ready").status == 200, 20, "ready")


def failing(nautile):
    """A load that fails ends the process with the load's own error and exit code."""
    with Held("tokenizer.json") as held, Server(nautile, backend="engine", model=held.folder.name, wait=False) as server:
        eventually(lambda: loading(server).get("percent") == 100, 20, "the weights are in place")
        held.release(b"{ this is no tokenizer")
        check(server.process.wait(20) == 1, "exit code")
        server.reader.join(5)
        check(any(line.startswith("nautile: ") and "tokenizer.json" in line for line in server.lines), f"{server.lines}")
        server.process.returncode = 0  # as it should be
    with tempfile.TemporaryDirectory() as empty:
        with Server(nautile, backend="engine", model=empty, wait=False) as server:
            check(server.process.wait(20) == 1, "no model directory")
            server.reader.join(5)
            check(any("no config.json" in line for line in server.lines), f"{server.lines}")
            server.process.returncode = 0


def ending(nautile):
    """Told to end while it loads, it does not wait for the load."""
    with Held("tokenizer.json") as held, Server(nautile, backend="engine", model=held.folder.name, wait=False) as server:
        eventually(lambda: loading(server).get("percent") == 100, 20, "the weights are in place")
        check(server.stop(timeout=5) == 0, "exit code 0")


if __name__ == "__main__":
    run_all((progress, failing, ending), sys.argv[1])
