"""Writes a trainer state as a DeepSeek-V4 checkpoint: sharded safetensors in the official names and formats.

    python export.py --state build/state.pt --model ../../models/nano
`read` is the way back: the weights of a written checkpoint, for the evaluation in Python.
"""
import argparse
import json
import os
import struct

import torch

import weights as W
import roundings as R
from config import config

# Greedy by default: a model this small should give its best answer, not a sample.
GENERATION = {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "do_sample": False, "temperature": 1.0,
              "top_p": 1.0}


def tensors(master, c):
    """Every tensor of the checkpoint in file order: (name, dtype string, shape, bytes)."""
    out = []

    def put(name, dtype, t):
        t = t.detach().contiguous()
        raw = t.view(torch.uint8).numpy().tobytes() if t.dim() else t.reshape(1).view(torch.uint8).numpy().tobytes()
        out.append((name, dtype, list(t.shape), raw))

    def fp8(name, w):
        q, s = R.fp8_weight_bytes(w)
        put(name + ".weight", "F8_E4M3", q)
        put(name + ".scale", "F8_E8M0", s)

    def fp4(name, w):
        q, s = R.fp4_weight_bytes(w)
        put(name + ".weight", "I8", q)
        put(name + ".scale", "F8_E8M0", s)

    inter = c["moe_intermediate_size"]
    for n, (shape, kind) in W.shapes(c).items():
        m = master[n]
        if n.endswith("experts.w13"):
            for e in range(shape[0]):
                fp4(n[:-3] + f"{e}.w1", m[e, :inter])
                fp4(n[:-3] + f"{e}.w3", m[e, inter:])
        elif n.endswith("experts.w2"):
            for e in range(shape[0]):
                fp4(n[:-2] + f"{e}.w2", m[e])
        elif n.endswith("shared_experts.w13.weight"):
            fp8(n[:-10] + "w1", m[:inter])
            fp8(n[:-10] + "w3", m[inter:])
        elif kind == "fp8":
            fp8(n[:-7], m)
        elif kind == "bf16":
            put(n, "BF16", m.to(torch.bfloat16))
        else:
            put(n, "F32", m.float())
    for i in range(c["num_hash_layers"]):
        put(f"layers.{i}.ffn.gate.tid2eid", "I64", W.hash_table(c, i))
    return out


def write_shard(path, items):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, raw in items:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    h = json.dumps(header, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h)
        for _, _, _, raw in items:
            f.write(raw)


def write(master, c, out):
    """Two shards: the embedding and the first half of the layers; the rest, the head and the MTP block."""
    os.makedirs(out, exist_ok=True)
    items = tensors(master, c)
    half = c["num_hidden_layers"] // 2
    first = [t for t in items if t[0].startswith("embed.") or any(t[0].startswith(f"layers.{i}.") for i in range(half))]
    names = {t[0] for t in first}
    second = [t for t in items if t[0] not in names]
    weight_map = {}
    for k, part in enumerate((first, second)):
        file = f"model-{k + 1:05d}-of-00002.safetensors"
        write_shard(os.path.join(out, file), part)
        weight_map.update({t[0]: file for t in part})
    total = sum(len(t[3]) for t in items)
    for name, obj in (("config.json", c), ("generation_config.json", GENERATION),
                      ("model.safetensors.index.json", {"metadata": {"total_size": total},
                                                        "weight_map": dict(sorted(weight_map.items()))})):
        with open(os.path.join(out, name), "w") as f:
            json.dump(obj, f, indent=2)
            f.write("\n")
    return total, len(items)


def read(path):
    """(config, weight dict for `model.Nano`, values as stored; FP8 and FP4 already multiplied out, bfloat16)."""
    c = json.load(open(os.path.join(path, "config.json")))
    index = json.load(open(os.path.join(path, "model.safetensors.index.json")))["weight_map"]
    kinds = {"BF16": torch.bfloat16, "F32": torch.float32, "I64": torch.int64, "I8": torch.uint8, "F8_E4M3": torch.uint8,
             "F8_E8M0": torch.uint8}
    raw = {}
    for file in sorted(set(index.values())):
        b = open(os.path.join(path, file), "rb").read()
        n = struct.unpack("<Q", b[:8])[0]
        for name, t in json.loads(b[8:8 + n]).items():
            if name != "__metadata__":
                s, e = t["data_offsets"]
                buf = torch.frombuffer(bytearray(b[8 + n + s:8 + n + e]), dtype=torch.uint8)
                raw[name] = (t["dtype"], buf.view(kinds[t["dtype"]]).reshape(t["shape"]))
    flat = {}
    for name, (dtype, t) in raw.items():
        if dtype == "F8_E8M0":
            continue
        scale = raw.get(name[:-7] + ".scale", (None, None))[1] if name.endswith(".weight") else None
        if dtype == "F8_E4M3":
            flat[name] = R.fp8_value(t, scale).to(torch.bfloat16)
        elif dtype == "I8":
            flat[name] = R.fp4_value(t, scale).to(torch.bfloat16)
        else:
            flat[name] = t
    w = {}
    for n in W.shapes(c):
        if n.endswith("experts.w13"):
            p = n[:-3]
            w[n] = torch.stack([torch.cat((flat[f"{p}{e}.w1.weight"], flat[f"{p}{e}.w3.weight"]))
                                for e in range(c["n_routed_experts"])])
        elif n.endswith("experts.w2"):
            w[n] = torch.stack([flat[f"{n[:-2]}{e}.w2.weight"] for e in range(c["n_routed_experts"])])
        elif n.endswith("shared_experts.w13.weight"):
            p = n[:-10]
            w[n] = torch.cat((flat[p + "w1.weight"], flat[p + "w3.weight"]))
        else:
            w[n] = flat[n]
    for i in range(c["num_hash_layers"]):
        w[f"layers.{i}.ffn.gate.tid2eid"] = flat[f"layers.{i}.ffn.gate.tid2eid"]
    return c, w


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--state", required=True)
    a.add_argument("--model", required=True)
    a = a.parse_args()
    s = torch.load(a.state)
    c = s["config"]
    total, count = write(s["master"], c, a.model)
    _, w = read(a.model)
    want = W.stored(s["master"], c)
    for n, t in want.items():
        assert torch.equal(t, w[n]), n
    print(f"step {s['step']}, {s['tokens']} tokens: {count} tensors, {total} bytes, read back equal")


if __name__ == "__main__":
    main()
