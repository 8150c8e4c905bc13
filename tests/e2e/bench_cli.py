#!/usr/bin/env python3
"""`nautile bench` end to end on nano: the JSON's keys and sums, the figure, the table of kernels, refusals.

usage: bench_cli.py NAUTILE MODEL
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

NAUTILE, MODEL = sys.argv[1:3]


def bench(*args, code=0):
    done = subprocess.run([NAUTILE, "bench", *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (args, done.returncode, done.stderr)
    return done.stdout if code == 0 else done.stderr


with tempfile.TemporaryDirectory() as folder:
    figure = pathlib.Path(folder) / "bench.svg"
    out = json.loads(bench(MODEL, "--depth", "0,1k", "--batch", "1,2", "--prefill", "32", "--decode", "2", "--repeats", "2",
                           "--json", "--plot", str(figure)))
    assert out["decode_percent_of_roof"] > 0 and out["prefill_percent_of_peak"] > 0, out
    assert [(r["what"], r["depth"], r["batch"]) for r in out["rows"]] == [
        ("decode", 0, 1), ("decode", 0, 2), ("decode", 1024, 1), ("decode", 1024, 2), ("prefill", 0, 1), ("prefill", 1024, 1)]
    for row in out["rows"]:
        assert row["slowest"] <= row["tokens_per_s"] <= row["fastest"], row
        assert 0 < row["percent_of_bound"] and row["bytes"]["weights"] > 0, row
        assert 0 <= row["percent_stolen"] <= 100 and 0 <= row["percent_taken"] <= 100, row
    deep, shallow = out["rows"][2], out["rows"][0]
    assert deep["operations"]["attention"] > shallow["operations"]["attention"], (deep, shallow)
    texts = [e.text for e in xml.etree.ElementTree.parse(figure).iter() if e.text]
    assert any("decode 1 @ 1k" in t for t in texts), texts

rows = bench(MODEL, "--depth", "1M", "--prefill", "0", "--decode", "1", "--repeats", "1", "--csv").splitlines()
assert len(rows) == 2 and rows[0].startswith("what,depth"), rows  # a depth beyond the context: the deepest there is
kernels = bench(MODEL, "--kernels")
assert "attention" in kernels and "index scores" in kernels and "avx2" in kernels, kernels
assert "--depth" in bench(MODEL, "--depth", "4q", code=2)
