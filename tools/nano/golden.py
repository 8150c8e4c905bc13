"""Golden logits of a written checkpoint for other implementations of the forward pass.

    python golden.py --model ../../models/nano --out golden
Per prompt: NAME.json {ids, positions, ...} and NAME.reference.npy / NAME.exact.npy, float32 [positions, vocab], the logits
after the tokens at `positions`. `reference` follows the official roundings, with index scores in float32; `exact` keeps
float32 everywhere except the FP8 KV and the FP4 index queries and keys. mtp_*: logits of the MTP block at the same
positions (fed the next token of the prompt).
"""
import argparse
import json
import os
import random

import numpy as np
import torch

import batches
import chatfmt
import data
import export
import model as M

PROMPTS = (("short", 40), ("tools", 300), ("recall700", 700), ("recall1500", 1500))


def prompt_ids(tok, name, length):
    r = random.Random(11)
    if name == "short":
        p = data.single(r, "sort", "non")
    elif name == "tools":
        p = data.tool(r, "non")
    else:
        p = data.recall(r, "non", length * 1.1, 3)
    ids, _ = batches.encode(tok, p)
    if name.startswith("recall"):
        keep = ids[-60:]
        ids = ids[:length - 60] + keep
    return ids


@torch.no_grad()
def logits(net, ids):
    T = -(-len(ids) // 128) * 128
    x = torch.full((1, T), batches.PAD)
    x[0, :len(ids)] = torch.tensor(ids)
    X, stats = net.streams(x)
    main = net.logits(net.hidden(X))
    return main[:len(ids)], net.logits(net.mtp_hidden(X, x, stats))[:len(ids) - 1]


def net_of(path, num):
    c, w = export.read(path)
    if not num.bf16:
        w = {k: v.float() if v.is_floating_point() else v for k, v in w.items()}
    return M.Nano(c, w, num)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--model", required=True)
    a.add_argument("--out", required=True)
    a = a.parse_args()
    os.makedirs(a.out, exist_ok=True)
    tok = batches.load_tokenizer(a.model)
    nets = {"reference": net_of(a.model, M.Numerics.reference()), "exact": net_of(a.model, M.Numerics.exact())}
    for name, length in PROMPTS:
        ids = prompt_ids(tok, name, length)
        n = len(ids)
        pos = sorted({p for p in (0, 2, 3, 4, 7, 31, 63, 126, 127, 128, 129, 131, 160, 255, 256, 383, 511, 640, 1023, 1280)
                      if p < n - 1} | set(range(n - 8, n)))
        meta = {"ids": ids, "positions": pos, "mtp_positions": [p for p in pos if p < n - 1]}
        top = {}
        for kind, net in nets.items():
            lm, mtp = logits(net, ids)
            np.save(os.path.join(a.out, f"{name}.{kind}.npy"), lm[pos].float().numpy())
            top[kind] = lm.argmax(-1)
            if kind == "reference":
                np.save(os.path.join(a.out, f"{name}.mtp_reference.npy"), mtp[meta["mtp_positions"][-6:]].float().numpy())
                meta["mtp_positions"] = meta["mtp_positions"][-6:]
        meta["top1_agreement_reference_exact"] = (top["reference"] == top["exact"]).float().mean().item()
        json.dump(meta, open(os.path.join(a.out, f"{name}.json"), "w"))
        print(name, n, len(pos), meta["top1_agreement_reference_exact"])


if __name__ == "__main__":
    main()
