#!/usr/bin/env python3
"""Speed gate: a bench run's shares of its own bounds against a stored baseline.

usage: bench-gate.py BASELINE RUN.json            compares; exit 1 when a row has lost more than the tolerance
       bench-gate.py --update BASELINE RUN.json   stores the run as the new baseline
       bench-gate.py --self-test

A row's share is its tokens/s over what the bytes and operations of the step allow on this machine in this minute (the
read rate and the peaks measured beside it), so a slower machine phase moves both. A share may fall by TOLERANCE of
itself before the gate fails: alternating runs on a shared machine differ by up to a tenth.
"""
import json
import sys

TOLERANCE = 0.15


def shares(run):
    """{(what, depth, batch, chunk): percent of bound}"""
    return {(r["what"], r["depth"], r["batch"], r["chunk"]): r["percent_of_bound"] for r in run["rows"]}


def compare(baseline, run):
    """Lines of a table, and whether every row of the baseline is there and fast enough."""
    lines, good = [f"{'row':32} {'baseline':>9} {'now':>9} {'change':>8}"], True
    if baseline["isa"] != run["isa"] or baseline["threads"] != run["threads"]:
        lines.append(f"baseline: {baseline['isa']}, {baseline['threads']} threads; "
                     f"this run: {run['isa']}, {run['threads']} threads. Shares of different kernels do not compare.")
        return lines, False
    now = shares(run)
    for key, before in shares(baseline).items():
        name = "{} depth {} batch {} chunk {}".format(*key)
        if key not in now:
            lines.append(f"{name:32} {before:8.1f}%   missing")
            good = False
            continue
        change = now[key] / before - 1
        failed = change < -TOLERANCE
        good = good and not failed
        lines.append(f"{name:32} {before:8.1f}% {now[key]:8.1f}% {change:+8.1%}{'   SLOWER' if failed else ''}")
    return lines, good


def self_test():
    def run(*percents, isa="avx512"):
        return {"isa": isa, "threads": 2,
                "rows": [{"what": "decode", "depth": d, "batch": 1, "chunk": 1, "percent_of_bound": p}
                         for d, p in enumerate(percents)]}
    assert compare(run(70, 80), run(70, 80))[1]
    assert compare(run(70, 80), run(60, 99))[1]
    assert not compare(run(70, 80), run(59, 99))[1]
    assert not compare(run(70, 80), run(70))[1]
    assert not compare(run(70), run(70, isa="avx2"))[1]


def main(args):
    if args == ["--self-test"]:
        return self_test()
    update = args[:1] == ["--update"]
    if len(args) != 2 + update:
        sys.exit(__doc__)
    path, run = args[update], json.load(open(args[update + 1], encoding="utf-8"))
    if update:
        kept = {key: run[key] for key in ("cpu", "isa", "threads", "numerics", "layers")}
        kept["rows"] = [{key: round(r[key], 1) if key == "percent_of_bound" else r[key]
                         for key in ("what", "depth", "batch", "chunk", "percent_of_bound")} for r in run["rows"]]
        with open(path, "w", encoding="utf-8") as out:
            json.dump(kept, out, indent=1)
            out.write("\n")
        return
    lines, good = compare(json.load(open(path, encoding="utf-8")), run)
    print("\n".join(lines))
    sys.exit(0 if good else 1)


main(sys.argv[1:])
