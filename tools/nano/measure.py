"""Measures nano's skills through the nautile program and prints the table of models/nano/README.md.

    python measure.py --nautile build/release/nautile --model models/nano --n 500 [--skills add2,add3] [--work DIR]
Problems come from problems.py with an evaluation seed; answers from `nautile run MODEL --messages-jsonl FILE --json`,
one object per line with content, reasoning_content and tool_calls.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT = ("add2", "add3", "sub", "mul1", "compare", "max", "sort", "reverse", "count", "chat", "recall@1000", "recall@4000",
           "tool", "tool_answer", "tool_none", "json")


def correct(p, got):
    text, calls = (got.get("content") or "").strip(), got.get("tool_calls") or []
    want = p["expect"]
    if p["check"] == "tool":
        if len(calls) != 1:
            return False
        f = calls[0].get("function", calls[0])
        args = f.get("arguments")
        try:
            args = json.loads(args) if isinstance(args, str) else args
        except ValueError:
            return False
        return f.get("name") == want["name"] and args == want["arguments"]
    if calls:
        return False
    if p["check"] == "number":
        found = re.findall(r"-?\d+", text)
        return bool(found) and found[-1] == str(want)
    if p["check"] == "json":
        try:
            return json.loads(text) == want
        except ValueError:
            return False
    return text == str(want).strip()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--nautile", required=True)
    a.add_argument("--model", required=True)
    a.add_argument("--n", type=int, default=500)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--skills", default=",".join(DEFAULT))
    a.add_argument("--modes", default="non,high,max")
    a.add_argument("--work")
    a.add_argument("--flag", action="append", default=[], help="further argument for `nautile run` (repeatable)")
    a = a.parse_args()
    work = a.work or tempfile.mkdtemp(prefix="nano-measure-")
    os.makedirs(work, exist_ok=True)
    modes = a.modes.split(",")
    print("| skill | " + " | ".join({"non": "Non-Think", "high": "Think High", "max": "Think Max"}[m] for m in modes) + " |")
    print("| --- |" + " --- |" * len(modes))
    for skill in a.skills.split(","):
        name, _, length = skill.partition("@")
        cells = []
        for mode in modes:
            file = os.path.join(work, f"{name}{length}-{mode}.jsonl")
            subprocess.run([sys.executable, os.path.join(HERE, "problems.py"), "--skill", name, "--mode", mode, "--n",
                            str(a.n), "--seed", str(a.seed), "--out", file] + (["--length", length] if length else []),
                           check=True)
            r = subprocess.run([a.nautile, "run", a.model, "--messages-jsonl", file, "--json"] + a.flag,
                               stdout=subprocess.PIPE, text=True)
            if r.returncode:
                sys.exit(f"nautile run failed with {r.returncode} on {file}")
            ps = [json.loads(x) for x in open(file, encoding="utf-8")]
            got = [json.loads(x) for x in r.stdout.splitlines() if x.strip()]
            if len(got) != len(ps):
                sys.exit(f"{file}: {len(ps)} problems, {len(got)} answers")
            with open(file.replace(".jsonl", ".answers.jsonl"), "w", encoding="utf-8") as f:
                f.write(r.stdout)
            good = sum(correct(p, g) for p, g in zip(ps, got))
            cells.append(f"{100 * good / len(ps):.1f}%")
        print(f"| {skill.replace('@', ', about ')}{' tokens' if length else ''} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
