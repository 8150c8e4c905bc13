#!/usr/bin/env python3
"""nautile plan through its command line: exit codes, one-line errors with near names, every verb, the data directory.

usage: plan_cli.py NAUTILE SOURCE_DIR
"""
import json
import pathlib
import subprocess
import sys
import tempfile

PROGRAM, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
TODAY = ["--today", "2026-11-24"]
failures = []


def plan(*args):
    done = subprocess.run([PROGRAM, "plan", *args], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def check(what, truth):
    if not truth:
        failures.append(what)


def refused(*args, says):
    code, out, err = plan(*args)
    check(f"{args}: exit {code}, not 2", code == 2)
    check(f"{args}: printed on stdout", out == "")
    check(f"{args}: {len(err.splitlines())} lines on stderr: {err}", len(err.splitlines()) == 1)
    check(f"{args}: stderr lacks {says!r}: {err}", says in err)


# Bad input: one line, exit 2, the near name.
refused("--hw", "gb300:0", says="not a number of devices")
refused("--hw", "m1355x:4", says="did you mean mi355x?")
refused("--hw", "gb300:4", "--rate", "-1", says="--rate")
refused("--ctx", "1048577", says="1,048,576")
refused("--ctx", "32kb", says="--ctx")
refused("--hit", "85", says="did you mean 0.85?")
refused("--model", "v4pro", says="did you mean v4-pro?")
refused("--hosted", "deepsek", says="did you mean deepseek?")
for price in ("1/2", "1", "1/2/3/4", "1//3", "a/b/c", "1/2/-3", "1/2/3x", "1/2/"):
    refused("--hosted-price", price, says="--hosted-price")
refused("--today", "2026-02-30", says="not a date")
refused("--ssd", "7000", says="did you mean 7?")
refused("--data", "/nowhere", says="/nowhere")
refused("sweep", "--vary", "rat", says="did you mean rate")
code, out, err = plan("--no-such-flag")
check("unknown flag is exit 2", code == 2)

# Does not fit: exit 3 and the smallest change.
code, out, err = plan("--hw", "h100-sxm:8", *TODAY)
check(f"does not fit is exit 3, not {code}", code == 3)
check(f"does not fit names the change: {err}", err == "nautile: does not fit: smallest change that fits: 13 devices of h100-sxm (16 in practice)\n")
check("does not fit still reports", "DOES NOT FIT" in out)
code, out, err = plan("--hw", "h100-sxm:16", "--rate", "2.71", *TODAY)
check(f"and the change fits: {code} {err}", code == 0)

# The report and its JSON agree.
code, out, err = plan("--hw", "gb300-nvl4-tray:4", "--min-tps", "40", "--rate", "6", "--json", *TODAY)
report = json.loads(out)
check("schema", report["schema"] == "planner/1")
check("weights to the byte", report["fit"]["weights_bytes"] == 864704792696)
check("break-even of the worked example", abs(report["cost"]["break_even_use"] - 0.29) < 0.01)
for item in report["assumptions"]:
    check(f"assumption {item} lacks a source, date or mark", item["source"] and item["date"] and item["mark"])

# Every verb prints and has JSON of the schema.
for verb in (["fit"], ["compare", "gb300:4", "b200:8"], ["sweep", "--vary", "hit", "--points", "3"], ["models"], ["sources"], ["validate"]):
    code, out, err = plan(*verb)
    check(f"{verb}: exit {code}: {err}", code == 0 and len(out.splitlines()) >= 3)
    code, out, err = plan(*verb, "--json")
    check(f"{verb} --json: {err}", code == 0 and json.loads(out)["schema"] == "planner/1")
    code, out, err = plan(verb[0], "--help")
    check(f"{verb[0]} --help starts with an example", code == 0 and out.lstrip().startswith("example:"))
code, out, err = plan("--help")
check("--help starts with an example", out.lstrip().startswith("example:"))
code, out, err = plan("--explain", *TODAY)
check("--explain shows the arithmetic", "9/16 - 17/32" in out and "0.271" in out and "0.102" in out)

# A data directory replaces single files; a broken one is named.
with tempfile.TemporaryDirectory() as folder:
    text = (SOURCE / "data/prices.json").read_text()
    pathlib.Path(folder, "prices.json").write_text(text.replace('"output": 1.98', '"output": 198'))
    code, out, err = plan("--data", folder, "--hw", "gb300:4", "--json", *TODAY)
    check(f"replaced price: {err}", code == 0 and json.loads(out)["cost"]["hosted_rate"]["output"] > 100)
    pathlib.Path(folder, "prices.json").write_text(text[:-20])
    refused("--data", folder, says="prices.json")
    pathlib.Path(folder, "prices.json").write_text(text.replace('"output": 1.98', '"output": -1'))
    refused("--data", folder, says="prices.json")
    own = {"id": "own-box", "class": "cpu", "memory_gb": 512, "mem_bw_tbs": 0.3, "dense_tflops": {"bf16": 4},
           "source": "the vendor's page", "source_date": "2026-11-01", "mark": "vendor"}
    path = pathlib.Path(folder, "own.json")
    path.write_text(json.dumps(own))
    code, out, err = plan("--hw-file", str(path), "--hw", "own-box", "--model", "v4-flash", "--rate", "1", *TODAY)
    check(f"hardware of one's own: {err}", code == 0 and "own-box" in out)
    svg, page = pathlib.Path(folder, "p.svg"), pathlib.Path(folder, "p.html")
    code, out, err = plan("--hw", "gb300:4", "--plot", str(svg), "--html", str(page), *TODAY)
    check(f"figures: {err}", code == 0 and svg.read_text().startswith("<svg") and "<script>" in page.read_text())
    measured = pathlib.Path(folder, "m.json")
    measured.write_text(json.dumps({"schema": "planner-calibration/1", "model": "v4-flash", "hw": "b200-sxm:8", "points": [
        {"kind": "decode", "context": 8192, "batch": 1, "tok_s": 60}, {"kind": "decode", "context": 8192, "batch": 32, "tok_s": 1222},
        {"kind": "prefill", "context": 8192, "tok_s": 50000}]}))
    tuning = pathlib.Path(folder, "t.json")
    code, out, err = plan("calibrate", str(measured), "--save", str(tuning))
    check(f"calibrate: {err}", code == 0 and "rms ln error" in out)
    code, out, err = plan("--model", "v4-flash", "--hw", "b200:8", "--calibrate", str(tuning), *TODAY)
    check(f"plan --calibrate: {err}", code == 0)
    refused("calibrate", str(svg), says="not valid JSON")

print("\n".join(failures) or "plan: every check passed")
sys.exit(1 if failures else 0)
