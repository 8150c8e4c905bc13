#!/usr/bin/env python3
"""Mixed traffic on `nautile serve` for a long time: memory stays flat, overload is refused and not suffered, nothing stays behind.

usage: soak.py BUILD_DIRECTORY [--seconds 600] [--warm-up 300] [--model DIR] [--clients 6]

The warm-up is counted in work and not in time, so that a slow machine is as warm as a fast one when the seconds begin: so many
requests of the mixed traffic, then, a few times, as many long prompts at once as a step holds and as many connections as the
overload opens (11 MB that else a stall of the machine brings about hours later), then ten times as many requests as at first, offered at
ten times the capacity. Half of the seconds offer ten times the capacity beside the mixed traffic; the rest is mixed traffic alone:
four dialects, streams and whole answers, structured output, tools, logprobs, several choices, errors, clients that leave in prefill
and in decode, slow readers. Asserted: every accepted request finishes, every refusal is a 503 or 529 with Retry-After, the server's
own memory beside the prefix cache (which fills to its limit, when depends on the machine) stays flat after the overload and within a
wider allowance over it (its high-water mark stays), and at the end the engine is idle without a sequence, a state or a stream.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from serve_harness import Server, chat, check, events, eventually, head, read_response  # noqa: E402

SEQUENCES, CONNECTIONS = 16, 1000  # the most in a step, and that the overload opens
BURSTS = 4  # of either to warm up
WAIT_S = 200  # longest that an accepted request may take while ten times too much is offered
FLAT_MB, OVERLOAD_MB = 6, 12  # between the medians of the first and the last fifth: after the overload, after the warm-up
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"type": "integer", "minimum": 3, "maximum": 99}}, "required": ["name", "n"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}}}


class Traffic:
    def __init__(self, server, clients):
        self.server, self.over, self.wrong = server, False, []
        self.counts = collections.Counter()
        self.ended, self.news = 0, threading.Condition()  # requests, right or wrong; told of each
        self.threads = [threading.Thread(target=self.client, args=(i,)) for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def wait(self, requests=float("inf"), seconds=None):
        """Until so many requests have ended, so many seconds are over or one went wrong."""
        with self.news:
            self.news.wait_for(lambda: self.ended >= requests or self.wrong, seconds)

    def stop(self):
        self.over = True
        for thread in self.threads:
            thread.join()

    def client(self, number):
        rng = random.Random(number)
        while not self.over and not self.wrong:
            kind = rng.choice([self.streams, self.streams, self.whole, self.whole, self.structured, self.tools, self.many, self.errors, self.leaves, self.leaves, self.slow])
            try:
                kind(rng)
                self.counts[kind.__name__] += 1
            except (ConnectionError, TimeoutError) as error:
                self.wrong.append(f"{kind.__name__}: {error!r}")
            except AssertionError as error:
                self.wrong.append(f"{kind.__name__}: {error}")
            with self.news:
                self.ended += 1
                self.news.notify_all()

    def body(self, rng, stream):
        text = rng.choice(["What is {} + {}?", "hello {} {}", "Tell me about {} and {}. " * rng.choice([1, 1, 30])]).replace("{}", str(rng.randrange(100)))
        n = rng.choice([5, 20, 60])
        extra = rng.choice([{}, {"temperature": 0}, {"top_k": 5, "presence_penalty": 0.5}, {"stop": ["7"]}, {"seed": rng.randrange(99)}])
        which = rng.randrange(4)
        if which == 0:
            return "/v1/chat/completions", {**chat(text, stream=stream, max_tokens=n), **extra}
        if which == 1:
            return "/v1/completions", {"model": "nautile", "prompt": text, "max_tokens": n, "stream": stream, **extra}
        if which == 2:
            return "/v1/messages", {**chat(text, stream=stream), "max_tokens": n}
        return "/v1/responses", {"model": "nautile", "input": text, "stream": stream, "max_output_tokens": n}

    def post(self, path, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.server.raw(head("POST", path, {"Content-Type": "application/json", "Content-Length": len(data)}) + data, WAIT_S)

    def ask(self, path, body):
        answer = self.post(path, body)
        if answer.status in (503, 529):
            check(int(answer.headers.get("retry-after", 0)) >= 1, f"{answer.status} without Retry-After")
            self.counts["refused"] += 1
            time.sleep(0.05)
            return None
        check(answer.status == 200, f"{answer.status} {answer.body[:300]!r} for {json.dumps(body)[:500]}")
        return answer

    def streams(self, rng):
        path, body = self.body(rng, True)
        answer = self.ask(path, body)
        if answer:
            made = events(answer.body)
            end = {"/v1/messages": "message_stop", "/v1/responses": "response.completed"}.get(path)
            last = [name for name, data in made if data != "[DONE]"][-1]
            check(made[-1][1] == "[DONE]" if end is None else last in (end, "response.incomplete"), f"{path}: a stream ends with {made[-1]}")

    def whole(self, rng):
        answer = self.ask(*self.body(rng, False))
        if answer:
            answer.json()

    def structured(self, rng):
        answer = self.ask("/v1/chat/completions", chat("hello", reasoning_mode="non_think", max_tokens=200, seed=rng.randrange(99), stream=False,
                                                       response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {**SCHEMA, "title": str(rng.randrange(300))}}}))
        if answer and answer.json()["choices"][0]["finish_reason"] == "stop":
            check(set(json.loads(answer.json()["choices"][0]["message"]["content"])) == {"name", "n"}, f"{answer.body}")

    def tools(self, rng):
        self.ask("/v1/chat/completions", chat("weather?", tools=[TOOL], tool_choice="required", max_tokens=80, stream=rng.random() < 0.5))

    def at_once(self, count, body):
        """So many connections, and a request on each before the first answer is read: what the traffic meets by chance, early or hours later."""
        data = json.dumps(body).encode()
        connections = [self.server.connect(WAIT_S) for _ in range(count)]
        for s in connections:
            s.sendall(head("POST", "/v1/chat/completions", {"Content-Type": "application/json", "Content-Length": len(data)}) + data)
        for s in connections:
            with s:
                check(read_response(s).status in (200, 503), "a request of many at once is answered or refused")

    def many(self, rng):
        self.ask("/v1/chat/completions", chat("hi", n=rng.choice([2, 4]), logprobs=True, top_logprobs=3, max_tokens=15, stream=rng.random() < 0.5))

    def errors(self, rng):
        path, body = self.body(rng, False)
        bad = rng.choice([b"{", b"[]", b'{"a":' * 200, json.dumps({**body, "temperature": 9}).encode(), json.dumps({**body, "model": "other"}).encode(),
                          json.dumps(chat("x", guided_regex="((")).encode(), json.dumps(chat("word " * 40000)).encode()])
        status = self.post(path, bad).status
        check(400 <= status < 500 or status in (503, 529), f"{status} for {bad[:200]!r}")

    def send(self, s, rng, long):
        path, body = "/v1/chat/completions", chat("word " * 3000 + str(rng.random()) if long else f"hello {rng.random()}", stream=rng.random() < 0.7, max_tokens=3000, ignore_eos=True)
        data = json.dumps(body).encode()
        s.sendall(head("POST", path, {"Content-Type": "application/json", "Content-Length": len(data)}) + data)

    def leaves(self, rng):
        with self.server.connect() as s:
            self.send(s, rng, rng.random() < 0.4)
            s.settimeout(rng.choice([0.001, 0.02, 0.1]))
            try:
                s.recv(2000)
            except TimeoutError:
                pass
            if rng.random() < 0.5:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    def slow(self, rng):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(WAIT_S)
            s.connect(("127.0.0.1", self.server.port))
            self.send(s, rng, False)
            for _ in range(rng.randrange(10)):
                if not s.recv(4096):
                    break
                time.sleep(0.05)


def resident_mb(pid):
    """Memory of its own, and pages of files, which the system takes and gives back as it likes."""
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return tuple(int(status[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssFile"))


def sanitized(pid):
    """AddressSanitizer holds freed memory back, 256 MB of it: what is resident then says nothing."""
    return "libasan" in open(f"/proc/{pid}/maps").read()


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("build", type=pathlib.Path)
    flags.add_argument("--seconds", type=float, default=600)
    flags.add_argument("--warm-up", type=int, default=300, help="requests of the mixed traffic, then ten times as many offered at ten times the capacity")
    flags.add_argument("--model", default=str(HERE.parents[1] / "models/nano"))
    flags.add_argument("--clients", type=int, default=6)
    o = flags.parse_args()
    load = str(o.build / "tests/load/serve_load")
    more = ["--quiet", "--max-connections-per-address", "4096", "--max-sequences", str(SEQUENCES), "--max-queue", "64", "--cache-memory", "64MB", "--state-memory", "256MB"]
    with Server(str(o.build / "nautile"), *more, backend="engine", model=o.model) as server:
        pid = server.process.pid
        begin = time.time()
        curve = []  # seconds, resident MB of its own, of files, MB in the prefix cache
        stop = threading.Event()
        def sample():
            while not stop.wait(2):
                cached = server.metric("nautile_kv_cache_bytes") / 1e6
                curve.append((time.time() - begin, *resident_mb(pid), cached))
        sampler = threading.Thread(target=sample)
        sampler.start()
        # Capacity: what it answers when it is kept full.
        full = json.loads(subprocess.run([load, "--port", str(server.port), "--streams", "16", "--rounds", "8", "--tokens", "128"], stdout=subprocess.PIPE, text=True, check=True).stdout)
        capacity = full["status"]["200"] / full["seconds"]
        files = len(os.listdir(f"/proc/{pid}/fd"))
        traffic = Traffic(server, o.clients)
        def overload(seconds):
            return subprocess.run([load, "--port", str(server.port), "--rate", f"{10 * capacity:.0f}", "--seconds", str(seconds), "--tokens", "128", "--pid", str(pid), "--most", str(CONNECTIONS)], stdout=subprocess.PIPE, text=True)
        traffic.wait(requests=o.warm_up)
        for _ in range(BURSTS):
            traffic.at_once(SEQUENCES, chat("word " * 3000, stream=False, max_tokens=300))
            traffic.at_once(CONNECTIONS, chat("hello", stream=True, max_tokens=128))
        overload(o.warm_up / capacity)
        warm = time.time() - begin
        run = overload(o.seconds / 2)
        over = json.loads(run.stdout)
        calm = time.time() - begin
        print(json.dumps({"capacity_per_s": round(capacity, 1), "overload": over}), flush=True)
        traffic.wait(seconds=begin + warm + o.seconds - time.time())
        traffic.stop()
        stop.set()
        sampler.join()
        # Memory.
        check(curve and curve[-1][0] > warm + o.seconds - 60, "the metrics page answers to the end")
        def growth_since(start):
            after = [own - cached for at, own, _, cached in curve if at > start]
            fifth = max(1, len(after) // 5)
            return statistics.median(after[-fifth:]) - statistics.median(after[:fifth])
        growth, drift = growth_since(warm), growth_since(calm)
        minute = {f"{int(at // 60)}": [round(mb, 1) for mb in mbs] for at, *mbs in curve}  # the last sample of each
        print(json.dumps({"seconds": round(time.time() - begin), "warm_up_s": round(warm), "requests": dict(traffic.counts), "own_files_cached_mb_by_minute": minute, "own_most_mb": round(max(own for _, own, _, _ in curve), 1), "growth_beside_cache_mb": round(growth, 1), "of_it_after_the_overload_mb": round(drift, 1)}))
        check(not traffic.wrong, f"{traffic.wrong[:3]}")
        # Overload: refused or finished, nothing between.
        check(set(over["status"]) <= {"200", "503"} and over["status"].get("200", 0) > 0, f"statuses {over['status']}")
        check(over["failed"] == over["unfinished"] == over["broken"] == over["without_retry_after"] == 0 and run.returncode == 0, "an accepted request did not finish, or a refusal named no time")
        # Nothing is left.
        eventually(lambda: server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting") == 0, 5, "idle")
        eventually(lambda: server.metric("nautile_http_inflight") == 0, 5, "no job is left")
        for name in ("nautile_http_inflight", "nautile_sse_streams"):
            check(server.metric(name) == 0, f"{name} is {server.metric(name)}")
        check(server.metric("nautile_kv_bytes") == server.metric("nautile_kv_cache_bytes"), "a state is left")
        eventually(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= files + 2, 5, "no descriptor is left")
        check(drift <= FLAT_MB or sanitized(pid), f"memory beside the cache grew by {drift:.1f} MB after the overload")
        check(growth <= OVERLOAD_MB or sanitized(pid), f"memory beside the cache grew by {growth:.1f} MB after the warm-up")
        check(server.stop() == 0, "a clean end")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"FAILED: {error}")
