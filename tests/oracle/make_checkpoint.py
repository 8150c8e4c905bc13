"""Writes a small random DeepSeek-V4 checkpoint in the official layout.

    python make_checkpoint.py NAME FOLDER      (NAME from configs.py, or `all`)

Names, dtypes and shapes follow checkpoint.md section 4. The weights are random
but scaled so that mistakes show: routers spread, sinks and biases are not zero,
norm weights are not one, the residual mixing matrices are far from the identity
and from symmetric, and FP8/FP4 scales differ from tile to tile. Deterministic
for a given config and seed; needs numpy only.
"""

import argparse
import json
import os

import numpy as np

import configs
import formats


class _Writer:
    """Collects (label, array) per tensor name, in order."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.tensors = {}

    def normal(self, *shape, std=1.0, mean=0.0):
        return self.rng.standard_normal(shape) * std + mean

    def bf16(self, name, value):
        self.tensors[name] = ("BF16", formats.bf16_bits(value.astype(np.float32)))

    def f32(self, name, value):
        self.tensors[name] = ("F32", np.asarray(value, dtype=np.float32))

    def norm(self, name, n, mean=1.0):
        self.bf16(name + ".weight", np.abs(self.normal(n, std=0.3 * mean, mean=mean)) + 0.05)

    def fp8(self, name, n, k, gain=1.0):
        w = self.normal(n, k, std=gain / np.sqrt(k))
        # Tiles of different size, so that a wrong scale index cannot pass.
        tile = 2.0 ** self.rng.uniform(-0.7, 0.7, (-(-n // 128), -(-k // 128)))
        w *= np.repeat(np.repeat(tile, 128, axis=0)[:n], 128, axis=1)[:, :k]
        codes, scale = formats.fp8_weight(w)
        self.tensors[name + ".weight"] = ("F8_E4M3", codes)
        self.tensors[name + ".scale"] = ("F8_E8M0", scale)

    def fp4(self, name, n, k, gain=1.0):
        w = self.normal(n, k, std=gain / np.sqrt(k))
        w *= np.repeat(2.0 ** self.rng.uniform(-1, 1, (n, k // 32)), 32, axis=1)
        packed, scale = formats.fp4_weight(w)
        self.tensors[name + ".weight"] = ("I8", packed.view(np.int8))
        self.tensors[name + ".scale"] = ("F8_E8M0", scale)

    def hyper(self, prefix, streams, width):
        """One mHC site: fn, base, scale."""
        m = (2 + streams) * streams
        self.f32(prefix + "_fn", self.normal(m, streams * width, std=1 / np.sqrt(streams * width)))
        base = self.normal(m, std=0.7)
        base[2 * streams :] = self.normal(streams * streams, std=2.5)  # slow to balance: every iteration shows
        self.f32(prefix + "_base", base)
        self.f32(prefix + "_scale", self.rng.uniform(0.6, 1.4, 3))

    def hyper_head(self, prefix, streams, width):
        self.f32(prefix + "_fn", self.normal(streams, streams * width, std=1 / np.sqrt(streams * width)))
        self.f32(prefix + "_base", self.normal(streams, std=0.7))
        self.f32(prefix + "_scale", self.rng.uniform(0.6, 1.4, 1))

    def compressor(self, prefix, ratio, d, width):
        wide = d * (2 if ratio == 4 else 1)
        self.f32(prefix + ".ape", self.normal(ratio, wide))
        self.bf16(prefix + ".wkv.weight", self.normal(wide, width, std=1 / np.sqrt(width)))
        self.bf16(prefix + ".wgate.weight", self.normal(wide, width, std=1.5 / np.sqrt(width)))
        self.norm(prefix + ".norm", d, mean=1.4)

    def layer(self, p, cfg, ratio, hashed):
        """One block: attention of the given ratio, MoE, two mHC sites."""
        d, h, hd, r = cfg["hidden_size"], cfg["num_attention_heads"], cfg["head_dim"], cfg["q_lora_rank"]
        g, o, inter = cfg["o_groups"], cfg["o_lora_rank"], cfg["moe_intermediate_size"]
        e, k, streams = cfg["n_routed_experts"], cfg["num_experts_per_tok"], cfg["hc_mult"]
        self.norm(p + "attn_norm", d)
        self.norm(p + "ffn_norm", d)
        self.fp8(p + "attn.wq_a", r, d)
        self.norm(p + "attn.q_norm", r)
        self.fp8(p + "attn.wq_b", h * hd, r)
        self.fp8(p + "attn.wkv", hd, d)
        self.norm(p + "attn.kv_norm", hd, mean=1.6)
        self.f32(p + "attn.attn_sink", self.normal(h, mean=0.5))
        self.fp8(p + "attn.wo_a", g * o, h * hd // g, gain=1.5)
        self.fp8(p + "attn.wo_b", d, g * o, gain=1.2)
        if ratio:
            self.compressor(p + "attn.compressor", ratio, hd, d)
        if ratio == 4:
            heads, width = cfg["index_n_heads"], cfg["index_head_dim"]
            self.fp8(p + "attn.indexer.wq_b", heads * width, r)
            self.bf16(p + "attn.indexer.weights_proj.weight", self.normal(heads, d, std=1 / np.sqrt(d)))
            self.compressor(p + "attn.indexer.compressor", ratio, width, d)
        self.hyper(p + "hc_attn", streams, d)
        self.hyper(p + "hc_ffn", streams, d)
        self.bf16(p + "ffn.gate.weight", self.normal(e, d, std=1.5 / np.sqrt(d)))
        if hashed:
            table = np.stack([self.rng.permutation(e)[:k] for _ in range(cfg["vocab_size"])])
            self.tensors[p + "ffn.gate.tid2eid"] = ("I64", table.astype(np.int64))
        else:
            self.f32(p + "ffn.gate.bias", self.normal(e, std=0.3))
        for i in range(e):
            self.fp4(p + f"ffn.experts.{i}.w1", inter, d, gain=1.2)
            self.fp4(p + f"ffn.experts.{i}.w2", d, inter, gain=1.5)
            self.fp4(p + f"ffn.experts.{i}.w3", inter, d, gain=1.2)
        self.fp8(p + "ffn.shared_experts.w1", inter, d, gain=1.2)
        self.fp8(p + "ffn.shared_experts.w2", d, inter)
        self.fp8(p + "ffn.shared_experts.w3", inter, d, gain=1.2)


def build(cfg, seed):
    """All tensors of a checkpoint: {name: (dtype label, array)}."""
    w = _Writer(seed)
    d, v, streams, layers = cfg["hidden_size"], cfg["vocab_size"], cfg["hc_mult"], cfg["num_hidden_layers"]
    w.bf16("embed.weight", w.normal(v, d))
    for i in range(layers):
        w.layer(f"layers.{i}.", cfg, cfg["compress_ratios"][i], i < cfg["num_hash_layers"])
    w.norm("norm", d)
    w.hyper_head("hc_head", streams, d)
    w.bf16("head.weight", w.normal(v, d, std=3 / np.sqrt(d)))
    for i in range(cfg["num_nextn_predict_layers"]):
        p = f"mtp.{i}."
        w.layer(p, cfg, cfg["compress_ratios"][layers + i], False)
        w.fp8(p + "e_proj", d, d)
        w.fp8(p + "h_proj", d, d)
        for name in ("enorm", "hnorm", "norm"):
            w.norm(p + name, d)
        w.hyper_head(p + "hc_head", streams, d)
    return w.tensors


def _shard_of(name, layers):
    """Three shards; the scales of layer 1 lie in another shard than its weights."""
    part = name.split(".")
    if part[0] == "layers":
        if part[1] == "1" and part[-1] == "scale":
            return 3
        return 1 if 2 * int(part[1]) < layers else 2
    return 3 if part[0] == "mtp" else 1


def write(cfg, seed, folder):
    """Writes config.json, three shards and the index; returns payload bytes."""
    os.makedirs(folder, exist_ok=True)
    tensors = build(cfg, seed)
    shards = {1: {}, 2: {}, 3: {}}
    for name, value in tensors.items():
        shards[_shard_of(name, cfg["num_hidden_layers"])][name] = value
    shards = [s for s in shards.values() if s]
    weight_map, total = {}, 0
    for i, shard in enumerate(shards, start=1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        total += formats.save_safetensors(os.path.join(folder, file), shard)
        weight_map.update({name: file for name in shard})
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    for file, value in (("model.safetensors.index.json", index), ("config.json", cfg)):
        with open(os.path.join(folder, file), "w") as out:
            json.dump(value, out, indent=2)
            out.write("\n")
    return total


def prompt(cfg, seed, tokens):
    """Random token ids with some repetition, so that old entries matter."""
    rng = np.random.default_rng(seed + 1_000_000)
    ids = rng.integers(0, cfg["vocab_size"], tokens)
    for _ in range(tokens // 40):
        length = int(rng.integers(4, 16))
        source, target = rng.integers(0, max(1, tokens - length), 2)
        ids[target : target + length] = ids[source : source + length]
    return ids.astype(np.int64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*configs.NAMES, "all"])
    parser.add_argument("folder", help="target folder (with `all`: one folder per name below it)")
    args = parser.parse_args()
    for name in configs.NAMES if args.name == "all" else [args.name]:
        cfg, seed, tokens = configs.config(name)
        folder = os.path.join(args.folder, name) if args.name == "all" else args.folder
        total = write(cfg, seed, folder)
        with open(os.path.join(folder, "tokens.json"), "w") as out:
            json.dump(prompt(cfg, seed, tokens).tolist(), out)
            out.write("\n")
        print(f"{name}: {total} bytes in {folder}")


if __name__ == "__main__":
    main()
