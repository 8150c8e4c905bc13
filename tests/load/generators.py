#!/usr/bin/env python3
"""aiperf and guidellm against `nautile serve`: streams at a time, throughput, TTFT and the time between tokens; `serve_load` beside them.

usage: generators.py BUILD_DIRECTORY [--aiperf PROGRAM] [--guidellm PROGRAM] [--model DIR] [--streams 1,8,64,512] [--rounds 4] [--prompt 64]
                     [--tokens 128]

A PROGRAM is the command that `pip install` leaves (tried: aiperf 0.13, guidellm 0.8.1). Nothing is fetched: the tokenizer is the
model's own. Both are several Python processes on the server's cores; a row has what they took of them beside what the server took.
A row that lacks requests or tokens, or one of whose answers failed, ends it with an error.
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from serve_harness import Server, check  # noqa: E402


def server_seconds(pid):
    parts = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def measured(o, server, command, folder, report, **environment):
    """Runs the tool: what it wrote into `report` below `folder`, and the processor seconds that it and the server took."""
    before = server_seconds(server.process.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment})
    after = server_seconds(server.process.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
    found = list(pathlib.Path(folder).rglob(report))
    check(run.returncode == 0 and found, f"{command[0]} ended with {run.returncode}:\n{run.stdout[-4000:]}")
    client = sum(getattr(after[1], f) - getattr(before[1], f) for f in ("ru_utime", "ru_stime"))
    return json.loads(found[0].read_text()), {"server": round(after[0] - before[0], 1), "client": round(client, 1)}


def aiperf(o, server, streams):
    requests = max(16, streams * o.rounds)
    with tempfile.TemporaryDirectory(prefix="aiperf-") as folder:
        command = [o.aiperf, "profile", "--model", "nautile", "--url", f"http://127.0.0.1:{server.port}", "--endpoint-type", "chat", "--streaming",
                   "--tokenizer", o.model, "--use-server-token-count", "--concurrency", streams, "--request-count", requests, "--warmup-request-count", min(streams, 16),
                   "--synthetic-input-tokens-mean", o.prompt, "--output-tokens-mean", o.tokens, "--extra-inputs", "ignore_eos:true", "--random-seed", 1,
                   "--ui", "none", "--no-gpu-telemetry", "--no-server-metrics", "--artifact-dir", folder]
        # Not HF_HUB_OFFLINE: aiperf would then look for the directory in the hub's cache (0.13).
        made, cpu_s = measured(o, server, command, folder, "profile_export_aiperf.json", HF_HUB_DISABLE_TELEMETRY="1")
    row = {"tool": "aiperf", "streams": streams, "requests": int(made["request_count"]["avg"]), "tokens_per_s": round(made["output_token_throughput"]["avg"], 1)}
    for name, field in (("ttft_ms", "time_to_first_token"), ("tpot_ms", "inter_token_latency"), ("latency_ms", "request_latency")):
        row[name] = {p: round(made[field][p], 2) for p in ("p50", "p99")}
    row |= {"tokens_each": made["output_sequence_length"]["avg"], "cpu_s": cpu_s}
    check(row["requests"] == requests and not (made.get("error_request_count") or {}).get("avg"), f"{row}: {requests} requests were asked for")
    check(row["tokens_each"] == o.tokens, f"{row}: {o.tokens} tokens were asked for")
    return row


def guidellm(o, server, streams):
    requests = max(16, streams * o.rounds)
    with tempfile.TemporaryDirectory(prefix="guidellm-") as folder:
        command = [o.guidellm, "run", "--backend", f"kind=openai_http,target=http://127.0.0.1:{server.port},model=nautile", "--profile", f"kind=concurrent,streams={streams}",
                   "--constraint", f"kind=max_requests,count={requests}", "--tokenizer", f"kind=hf_auto,model={o.model}",
                   "--data", f"kind=synthetic_text,prompt_tokens={o.prompt},output_tokens={o.tokens}", "--output", f"kind=json,path={folder}/out.json", "--disable-console"]
        made, cpu_s = measured(o, server, command, folder, "out.json", HF_HUB_OFFLINE="1")
    [run] = made["benchmarks"]
    metrics, ended = run["metrics"], run["metrics"]["request_totals"]
    tokens = metrics["output_token_count"]["successful"]
    row = {"tool": "guidellm", "streams": streams, "requests": ended["successful"], "tokens_per_s": round(tokens["total_sum"] / run["duration"], 1)}
    for name, field, scale in (("ttft_ms", "time_to_first_token_ms", 1), ("tpot_ms", "inter_token_latency_ms", 1), ("latency_ms", "request_latency", 1000)):
        row[name] = {p: round(metrics[field]["successful"]["percentiles"][p] * scale, 2) for p in ("p50", "p99")}
    row |= {"tokens_each": tokens["mean"], "cpu_s": cpu_s}
    check(ended["successful"] == ended["total"] == requests, f"{row}: {requests} requests were asked for: {ended}")
    check(tokens["min"] == tokens["max"] == o.tokens, f"{row}: {o.tokens} tokens were asked for")
    return row


def serve_load(o, server, streams):
    run = subprocess.run([str(o.build / "tests/load/serve_load"), "--port", str(server.port), "--pid", str(server.process.pid), "--streams", str(streams), "--tokens", str(o.tokens),
                          "--rounds", str(o.rounds)], stdout=subprocess.PIPE, text=True, check=True)
    made = json.loads(run.stdout)
    return {"tool": "serve_load", "streams": streams, **{name: made[name] for name in ("status", "tokens_per_s", "ttft_ms", "tpot_ms", "server_cpu_s", "client_cpu_s")}}


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("build", type=pathlib.Path)
    flags.add_argument("--aiperf")
    flags.add_argument("--guidellm")
    flags.add_argument("--model", default=str(HERE.parents[1] / "models/nano"))
    flags.add_argument("--streams", default="1,8,64,512")
    flags.add_argument("--rounds", type=int, default=4)
    flags.add_argument("--prompt", type=int, default=64)
    flags.add_argument("--tokens", type=int, default=128)
    o = flags.parse_args()
    with Server(str(o.build / "nautile"), "--quiet", "--max-connections-per-address", "4096", "--max-queue", "1024", backend="engine", model=o.model) as server:
        for streams in map(int, o.streams.split(",")):
            for tool in (serve_load, *(tool for tool in (aiperf, guidellm) if getattr(o, tool.__name__))):
                print(json.dumps(tool(o, server, streams)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"FAILED: {error}")
