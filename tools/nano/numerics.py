"""Distance of nano's default numerics from the official roundings, token by token.

    python numerics.py --nautile build/release/nautile --model models/nano [--tokens 6000] [--isa auto]

Fresh conversations of every skill and mode, replies included, are scored one after the other by
`nautile score --numerics fast|reference`. Printed: KL(reference | fast) over the vocabulary per token (mean, median,
99th percentile, largest), how often both have the same first choice, and the mean log-likelihood of each. Python's own
library only.
"""
import argparse
import array
import json
import math
import os
import subprocess
import tempfile

import chatfmt
import data


def texts():
    i = 0
    while True:
        for skill in data.SKILLS:
            for mode in data.MODES:
                p = data.problem(data.EVAL_SEED + 77, i, skill, mode)
                i += 1
                yield "".join(t for t, _ in chatfmt.render(p["messages"] + [{"role": "assistant", **p["reply"]}], p["mode"],
                                                           p.get("tools"), p.get("response_format")))


def read_npy(path):
    with open(path, "rb") as f:
        f.read(8)
        header = f.read(int.from_bytes(f.read(2), "little")).decode()
        shape = header[header.index("(") + 1:header.index(")")].split(",")
        values = array.array("f")
        values.frombytes(f.read())
    return int(shape[0]), int(shape[1]), values


def log_softmax(row):
    most = max(row)
    norm = most + math.log(math.fsum(math.exp(x - most) for x in row))
    return [x - norm for x in row]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--nautile", required=True)
    a.add_argument("--model", required=True)
    a.add_argument("--tokens", type=int, default=6000)
    a.add_argument("--isa", default="auto")
    a = a.parse_args()
    source, batches, total = texts(), [], 0
    while total < a.tokens:
        lines = [next(source) for _ in range(24)]
        out = subprocess.run([a.nautile, "tokenize", a.model, "--specials", "--jsonl"], check=True, capture_output=True,
                             input="".join(json.dumps(t) + "\n" for t in lines), text=True).stdout
        for line in out.splitlines():
            batches.append(json.loads(line))
            total += len(batches[-1])
    kl, same, likelihood, count = [], 0, {"fast": 0.0, "reference": 0.0}, 0
    with tempfile.TemporaryDirectory() as work:
        for ids in batches:
            path = os.path.join(work, "ids.json")
            with open(path, "w") as f:
                json.dump(ids, f)
            rows = {}
            for numerics in ("fast", "reference"):
                npy = os.path.join(work, numerics + ".npy")
                subprocess.run([a.nautile, "score", a.model, "--tokens", path, "--logits", npy, "--numerics", numerics,
                                "--isa", a.isa], check=True, capture_output=True)
                rows[numerics] = read_npy(npy)
            tokens, vocab, _ = rows["fast"]
            for t in range(tokens):
                p, q = (log_softmax(rows[n][2][t * vocab:(t + 1) * vocab]) for n in ("reference", "fast"))
                kl.append(max(0.0, math.fsum(math.exp(x) * (x - y) for x, y in zip(p, q))))
                same += max(range(vocab), key=p.__getitem__) == max(range(vocab), key=q.__getitem__)
                if t + 1 < tokens:
                    count += 1
                    likelihood["reference"] += p[ids[t + 1]]
                    likelihood["fast"] += q[ids[t + 1]]
    kl.sort()
    print(f"{len(batches)} conversations, {len(kl)} tokens, {a.isa} kernels")
    print(f"KL(reference | fast), nats: mean {sum(kl) / len(kl):.2e}, median {kl[len(kl) // 2]:.2e}, "
          f"99% {kl[len(kl) * 99 // 100]:.2e}, largest {kl[-1]:.2e}")
    print(f"same first choice: {100 * same / len(kl):.2f}%")
    print("mean log-likelihood: " + ", ".join(f"{n} {v / count:.4f}" for n, v in likelihood.items()))


if __name__ == "__main__":
    main()
