"""Skill table of a written checkpoint, in Python, from the re-read weights.

    python evaluate.py --model ../../models/nano --n 200
A problem counts when every token of the expected reply is the model's first choice given the tokens before it, which is
the same as greedy decoding writing exactly that reply (worked steps included). The program's own answers may be right
where this counts a miss (another wording of the steps), never the reverse.
"""
import argparse
import time

import torch

import batches
import data
import export
import model as M
from train import exact

SKILLS = [(s, None) for s in data.SKILLS if s not in ("recall", "add1")] + [("recall", 1000), ("recall", 4000)]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--model", required=True)
    a.add_argument("--n", type=int, default=200)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--skills", default="")
    a.add_argument("--modes", default="non,high,max")
    a = a.parse_args()
    c, w = export.read(a.model)
    net = M.Nano(c, w, M.Numerics.training())
    tok = batches.load_tokenizer(a.model)
    begin = time.time()
    modes = a.modes.split(",")
    print("| skill | " + " | ".join({"non": "Non-Think", "high": "Think High", "max": "Think Max"}[m] for m in modes) + " |")
    print("| --- |" + " --- |" * len(modes))
    for skill, length in SKILLS:
        if a.skills and skill not in a.skills.split(","):
            continue
        cells = []
        for mode in modes:
            n = a.n if not length else max(8, a.n // (4 if length < 2000 else 8))
            groups = {}
            for i in range(n):
                row = batches.encode(tok, data.problem(data.EVAL_SEED + a.seed, i, skill, mode, length))
                groups.setdefault(batches.bucket(len(row[0])), []).append(row)
            good = sum(exact(net, rows, T) for T, rows in groups.items())
            cells.append(f"{100 * good / n:.1f}% of {n}")
        print(f"| {skill}{f', about {length} tokens' if length else ''} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{time.time() - begin:.0f} s")


if __name__ == "__main__":
    main()
