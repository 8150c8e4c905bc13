#!/usr/bin/env python3
"""Drives `nautile chat` and `nautile run` as a person and a script would, with nano.

usage: chat_cli.py NAUTILE NANO_DIRECTORY
"""
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile

NAUTILE, NANO = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])


def run(*arguments, stdin=""):
    done = subprocess.run([NAUTILE, *arguments], input=stdin, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def check(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


class Terminal:
    """The program on a pseudo-terminal."""

    def __init__(self, *arguments):
        self.state = tempfile.TemporaryDirectory()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(XDG_STATE_HOME=self.state.name, TERM="xterm", COLUMNS="100")
            os.execv(NAUTILE, [NAUTILE, *arguments])
        self.seen = ""

    def wait(self, pattern, seconds=60):
        """Reads until the unread output matches; returns what was read up to there."""
        while not (found := re.search(pattern, self.seen, re.S)):
            ready, _, _ = select.select([self.fd], [], [], seconds)
            check(ready, f"no {pattern!r} within {seconds} s; saw {self.seen[-500:]!r}")
            self.seen += os.read(self.fd, 65536).decode(errors="replace")
        text, self.seen = self.seen[:found.end()], self.seen[found.end():]
        return text

    def say(self, line):
        os.write(self.fd, line.encode() + b"\n")

    def finish(self):
        os.write(self.fd, b"\x04")
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), os.path.exists(os.path.join(self.state.name, "nautile/history"))


def chat_in_a_terminal():
    t = Terminal("chat", NANO)
    t.wait("test-size model.*> ")
    t.say("What is 48 + 75?")
    reply = t.wait(r"tokens at \d+/s.*> ")
    check("123" in reply, f"48 + 75 in chat: {reply!r}")
    check("\x1b[2m" in reply and "carry" in reply, "reasoning is shown dimmed")
    t.say("/think non")
    t.wait("non_think.*> ")
    t.say("What is 20 + 30?")
    reply = t.wait(r"tokens at \d+/s.*> ")
    check("50" in reply and "carry" not in reply, f"no reasoning in Non-Think: {reply!r}")
    t.say("/think sideways")
    t.wait("no reasoning mode.*> ")
    t.say("/nonsense")
    t.wait("There is no command.*> ")
    # Ctrl-C at the prompt clears the line and does not end the program.
    os.write(t.fd, b"half a thought")
    t.wait("thought")
    os.kill(t.pid, signal.SIGINT)
    t.wait("> ")
    t.say("/new")
    t.wait("A new conversation.*> ")
    code, history = t.finish()
    check(code == 0 and history, f"leaving with Ctrl-D: code {code}, history kept: {history}")


def ctrl_c_stops_a_reply():
    # Sampling hot without a limit, so that the reply would go on for long.
    t = Terminal("chat", NANO, "--think", "high", "--temperature", "2", "--seed", "1", "--presence-penalty", "2")
    t.wait("> ")
    for _ in range(20):
        t.say("hello")
        t.wait("\x1b\\[2m.")
        os.kill(t.pid, signal.SIGINT)
        if "stopped" in t.wait(r"tokens at \d+/s.*?\n.*> "):
            break
    else:
        sys.exit("FAILED: Ctrl-C never stopped a reply")
    t.say("/think non")
    t.wait("non_think.*> ")
    check(t.finish()[0] == 0, "the program goes on after a stopped reply")


def run_for_scripts():
    code, out, err = run("run", NANO, "--prompt", "What is 48 + 75?")
    check((code, out, err) == (0, "123\n", ""), f"run: {code} {out!r} {err!r}")
    code, out, _ = run("run", NANO, "-f", "-", "--json", "--think", "max", stdin="What is 12 + 30?")
    reply = json.loads(out)
    check(code == 0 and reply["content"] == "42" and reply["finish_reason"] == "stop", f"--json: {out}")
    check("Check" in reply["reasoning_content"], "Think Max checks its result")
    check(reply["usage"]["completion_tokens"] > reply["usage"]["reasoning_tokens"] > 0, f"usage: {reply['usage']}")
    _, again, _ = run("run", NANO, "-f", "-", "--json", "--think", "max", "--threads", "1", stdin="What is 12 + 30?")
    check(json.loads(again)["content"] == reply["content"], "one thread gives the same answer")
    seeded = [json.loads(run("run", NANO, "-p", "hello", "--json", "--temperature", "1.5", "--seed", s)[1])["reasoning_content"]
              for s in ("7", "7", "8")]
    check(seeded[0] == seeded[1], "the same seed gives the same reply")
    code, out, _ = run("run", NANO, "-p", "What is 48 + 75?", "--think", "non", "--stop", "2")
    check(out == "1\n", f"--stop: {out!r}")
    code, out, _ = run("run", NANO, "-p", "hello", "--json", "--max-tokens", "3")
    check(json.loads(out)["finish_reason"] == "length", f"--max-tokens: {out}")


def tools_in_and_out():
    request = {"mode": "non", "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
               "tools": [{"type": "function", "function": {
                   "name": "get_weather", "description": "Get the weather of a city.",
                   "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]}
    code, out, err = run("run", NANO, "--messages-jsonl", "-", stdin=json.dumps(request) + "\n\n" + json.dumps(request))
    check(code == 0 and out.count("\n") == 2, f"jsonl: {code} {out} {err}")
    first, second = (json.loads(line) for line in out.splitlines())
    check(first["content"] == second["content"] and first.get("tool_calls") == second.get("tool_calls"), "asked twice, answered twice the same")
    check(second["usage"]["cached_tokens"] > 0, "the second request reuses the first one's prefix")
    check("DSML" not in first["content"], "no markup in content")


def bad_input():
    for arguments, code, word in (
            (["run", NANO], 2, "nothing to answer"),
            (["run", NANO, "-p", "a", "-f", "b"], 2, "more than one"),
            (["run", "/nonexistent", "-p", "a"], 1, "config.json"),
            (["run", NANO, "-p", "a", "--think", "hard"], 2, "choose non, low, high or max"),
            (["run", NANO, "-p", "a", "--think", "low"], 2, "low"),
            (["run", NANO, "-p", "a", "--temperature", "9"], 2, "temperature"),
            (["run", NANO, "-p", "a", "--isa", "sse9"], 2, "ref"),
            (["run", NANO, "-p", "a", "--threads", "-3"], 2, "threads"),
            (["run", NANO, "-f", "/nonexistent"], 1, "/nonexistent"),
            (["run", NANO, "-p", "a " * 20000], 3, "16384"),
            (["frobnicate"], 2, "")):
        got, out, err = run(*arguments)
        check(got == code and word in err + out, f"{arguments}: code {got} (not {code}): {err}")
    code, _, err = run("run", NANO, "--messages", "-", stdin='{"messages": [{"role": "wizard", "content": "hi"}]}')
    check(code == 2 and "messages[0].role" in err, f"unknown role: {code} {err}")
    code, _, err = run("run", NANO, "--messages", "-", stdin='{"messages": [')
    check(code == 1 and "JSON" in err, f"broken JSON: {code} {err}")


if __name__ == "__main__":
    for test in (run_for_scripts, tools_in_and_out, bad_input, chat_in_a_terminal, ctrl_c_stops_a_reply):
        test()
        print(f"{test.__name__}: ok")
