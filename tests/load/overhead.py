#!/usr/bin/env python3
"""What the server costs: the raw engine and `nautile serve` with the same model, batch and lengths, in alternating pairs.

usage: overhead.py BUILD_DIRECTORY [--model DIR] [--batch 8] [--tokens 400] [--pairs 10] [--threads N] [--flags "..."]

Both are loaded once and wait for their turn. The rates are those of the time in which all sequences decode. `served_of_raw` is
the median over pairs, `middle_half` where half of them lie; the client runs on the same cores and its processor time is part of it.
--threads gives both engines as many threads: with one less than there are cores, server and client have a core of their own.
"""
import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from serve_harness import Server  # noqa: E402


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("build", type=pathlib.Path)
    flags.add_argument("--model", default=str(HERE.parents[1] / "models/nano"))
    flags.add_argument("--batch", type=int, default=8)
    flags.add_argument("--tokens", type=int, default=800)
    flags.add_argument("--pairs", type=int, default=10)
    flags.add_argument("--threads", type=int, default=0, help="of each engine; 0: as many as cores")
    flags.add_argument("--flags", default="--speculation=off", help="for nautile serve")
    flags.add_argument("--verbose", action="store_true")
    o = flags.parse_args()
    raw = subprocess.Popen([o.build / "tests/load/raw_engine", o.model, str(o.batch), str(o.tokens), str(o.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with Server(str(o.build / "nautile"), "--quiet", *(["--threads", str(o.threads)] if o.threads else []), *shlex.split(o.flags), backend="engine", model=o.model) as server:
        def several(once):
            """The median of three runs after one that only warms up: a process that was idle is slow to spread over the cores."""
            runs = [once() for _ in range(4)][1:]
            return sorted(runs, key=lambda run: run["decode_tokens_per_s"])[1]
        def alone():
            raw.stdin.write("\n")
            raw.stdin.flush()
            return json.loads(raw.stdout.readline())
        def served():
            done = subprocess.run([o.build / "tests/load/serve_load", "--port", str(server.port), "--pid", str(server.process.pid), "--streams", str(o.batch),
                                   "--tokens", str(o.tokens)], stdout=subprocess.PIPE, text=True, check=True)
            return json.loads(done.stdout)
        def without():
            return several(alone)
        def through():
            return several(served)
        pairs = []
        for i in range(o.pairs):  # who goes first changes
            pair = (without(), through()) if i % 2 else tuple(reversed((through(), without())))
            pairs.append(pair)
            if o.verbose:
                print(json.dumps(pair))
    raw.stdin.close()
    raw.wait()
    rate = "decode_tokens_per_s"
    ratios = sorted(served[rate] / alone[rate] for alone, served in pairs)
    made = o.batch * o.tokens
    median = lambda values: statistics.median(list(values))  # noqa: E731
    print(json.dumps({
        "batch": o.batch, "pairs": o.pairs, "raw_tokens_per_s": median(a[rate] for a, _ in pairs), "served_tokens_per_s": median(s[rate] for _, s in pairs),
        "served_of_raw": round(median(ratios), 3), "middle_half": [round(r, 3) for r in statistics.quantiles(ratios, n=4)[::2]], "ratios": [round(r, 3) for r in ratios],
        "us_per_token": {"io": 1e6 * median(s["server_cpu_s"]["io"] for _, s in pairs) / made, "client": 1e6 * median(s["client_cpu_s"] for _, s in pairs) / made,
                         "engine": 1e6 * median(s["server_cpu_s"]["engine"] for _, s in pairs) / made, "raw_engine": 1e6 * median(a["cpu_s"] for a, _ in pairs) / made},
        "ttft_ms": median(s["ttft_ms"]["p50"] for _, s in pairs), "gap_p50_ms": median(s["gap_ms"]["p50"] for _, s in pairs),
        "gap_p99_ms": median(s["gap_ms"]["p99"] for _, s in pairs)}, indent=1))


if __name__ == "__main__":
    main()
