#!/usr/bin/env python3
"""Load on `nautile serve` from raw asyncio clients: throughput, TTFT and TPOT by number of streams; idle connections; memory.

usage: serve_load.py NAUTILE [--model DIR] [--streams 1,8,64,512] [--tokens 64] [--idle 2000] [--soak SECONDS]
"""
import argparse
import asyncio
import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from serve_harness import Server  # noqa: E402


async def stream(port, body):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    begin = time.perf_counter()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    first, tokens, status, last = None, 0, None, begin
    async for line in reader:
        if status is None:
            status = int(line.split()[1])
        if line.startswith(b"data: ") and b'"delta"' in line and b'"role"' not in line:
            last = time.perf_counter()
            first = first or last
            tokens += 1
        if line.startswith(b"data: [DONE]") or (status != 200 and line in (b"\r\n", b"\n")):
            break
    writer.close()
    return status, (first or last) - begin, last - (first or last), tokens


async def run(port, streams, rounds, body):
    limit = asyncio.Semaphore(streams)
    async def one(i):
        async with limit:
            return await stream(port, {**body, "messages": [{"role": "user", "content": f"hello {i}"}]})
    begin = time.perf_counter()
    results = await asyncio.gather(*(one(i) for i in range(streams * rounds)))
    seconds = time.perf_counter() - begin
    good = [r for r in results if r[0] == 200]
    tokens = sum(r[3] for r in good)
    tpot = [r[2] / (r[3] - 1) for r in good if r[3] > 1]
    print(f"{streams:5d} streams: {tokens / seconds:9.0f} tokens/s  TTFT p50 {1e3 * statistics.median(r[1] for r in good):8.1f} ms  "
          f"TPOT p50 {1e3 * statistics.median(tpot or [0]):7.2f} ms  {len(good)}/{len(results)} finished", flush=True)


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("nautile")
    flags.add_argument("--model")
    flags.add_argument("--streams", default="1,8,64,512")
    flags.add_argument("--rounds", type=int, default=2)
    flags.add_argument("--tokens", type=int, default=64)
    flags.add_argument("--idle", type=int, default=2000)
    flags.add_argument("--soak", type=float, default=0)
    o = flags.parse_args()
    backend = "engine" if o.model else "scripted"
    more = ["--quiet", "--max-connections-per-address", "4096", "--max-queue", "4096"]
    with Server(o.nautile, *more, backend=backend, model=o.model) as server:
        body = {"model": "nautile", "stream": True, "max_tokens": o.tokens, "ignore_eos": True, "reasoning_mode": "non_think"}
        def resident():
            return server.metric("process_resident_memory_bytes") / 1e6
        for streams in map(int, o.streams.split(",")):
            asyncio.run(run(server.port, streams, o.rounds, body))
        before = resident()
        held = [server.connect() for _ in range(o.idle)]
        for s in held:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            s.recv(4096)
        print(f"{o.idle} idle connections add {resident() - before:.1f} MB; resident {resident():.0f} MB")
        for s in held:
            s.close()
        end = time.time() + o.soak
        start = resident()
        while time.time() < end:
            asyncio.run(run(server.port, 32, 4, body))
            print(f"  resident {resident():.0f} MB (at the start {start:.0f})")


if __name__ == "__main__":
    main()
