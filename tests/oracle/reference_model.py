"""The DeepSeek-V4 forward pass in plain numpy, written from model.md appendix A.

    python reference_model.py FOLDER --tokens FILE --logits OUT.npy
        [--numerics exact|reference] [--dtype float64|float32] [--mtp OUT2.npy]

One sequence, one whole-prompt pass, no cache. It is meant to be read beside the
specification, so every step is one line of it and nothing is clever. Section
numbers in comments are those of model.md.

numerics
  exact      de-quantised weights; no rounding of activations, KV or index keys,
             no Hadamard (it cancels in exact arithmetic).
  reference  the official code's roundings, per the table in checkpoint.md
             section 10: bf16 between operations, FP8 activations into FP8/FP4
             linears, FP8 on the non-rotary KV dims, Hadamard + FP4 on index q
             and keys, bf16 index scores.

dtype is the type of everything that the model keeps in float32 (accumulators,
softmax, mHC, router). float64 is the yardstick; float32 shows the noise floor.
Ties in a top-k go to the lower index (sections 6.5, 8.2).
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse  # noqa: E402
import json  # noqa: E402

import numpy as np  # noqa: E402

import formats  # noqa: E402


def rope_frequencies(cfg, compressed):
    """Section 4.1: per-pair frequencies in float32, with YaRN where compressed."""
    dim = cfg["qk_rope_head_dim"]
    base = cfg["compress_rope_theta"] if compressed else cfg["rope_theta"]
    exponent = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    f = np.float32(1) / np.power(np.float64(base), exponent.astype(np.float64)).astype(np.float32)
    if not compressed:
        return f
    yarn = cfg["rope_scaling"]
    original = yarn["original_max_position_embeddings"]

    def correction(rotations):
        return dim * np.log(original / (2 * np.pi * rotations)) / (2 * np.log(base))

    low = max(np.floor(correction(yarn["beta_fast"])), 0)
    high = min(np.ceil(correction(yarn["beta_slow"])), dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    return f / np.float32(yarn["factor"]) * ramp + f * (1 - ramp)


def top_k(scores, k):
    """Indices of the k highest, ties to the lower index, in ascending order."""
    return np.sort(np.argsort(-scores, kind="stable")[:k])


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


class Reference:
    def __init__(self, folder, numerics="exact", dtype=np.float64):
        assert numerics in ("exact", "reference")
        with open(os.path.join(folder, "config.json")) as f:
            self.cfg = json.load(f)
        self.rounding = numerics == "reference"
        self.dtype = np.dtype(dtype).type
        weights = formats.dequantised(formats.load_checkpoint(folder))
        self.w = {n: v if v.dtype == np.int64 else v.astype(self.dtype) for n, v in weights.items()}
        self.eps = self.dtype(self.cfg["rms_norm_eps"])
        # Smallest gap seen between the last chosen and the first rejected score,
        # relative to the spread of scores: how close a selection was to a tie.
        self.margin = {"indexer": np.inf, "router": np.inf}
        self.selections = 0  # queries for which the indexer really had to choose

    # ------------------------------------------------------------ roundings

    def bf16(self, x):
        return formats.bf16_round(x).astype(self.dtype) if self.rounding else x

    def fp8(self, x, group):
        return formats.fp8q(x, group).astype(self.dtype) if self.rounding else x

    def fp8_nope(self, x):
        """KV: FP8 on the non-rotary dims, groups of 64; rotary dims stay bf16."""
        nope = self.cfg["head_dim"] - self.cfg["qk_rope_head_dim"]
        return np.concatenate([self.fp8(x[..., :nope], 64), x[..., nope:]], axis=-1)

    def hadamard_fp4(self, x):
        if not self.rounding:
            return x
        h = formats.hadamard_matrix(x.shape[-1]).astype(self.dtype)
        return formats.fp4q(self.bf16(x @ h)).astype(self.dtype)

    # ------------------------------------------------------------ elements

    def quantised_linear(self, x, name):
        """FP8 or FP4 linear: activations FP8 per 128 along K, bf16 result."""
        return self.bf16(self.fp8(x, 128) @ self.w[name + ".weight"].T)

    def plain_linear(self, x, name):
        """A bf16 weight promoted to float32; the result is not rounded."""
        return x @ self.w[name + ".weight"].T

    def rms(self, x, name):
        """Section 2.2."""
        y = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return self.bf16(self.w[name + ".weight"] * y)

    def head_norm(self, q):
        """Section 4.2 step 3: unweighted, per head; bf16 arithmetic in reference."""
        mean = self.bf16(np.mean(self.bf16(q * q), axis=-1, keepdims=True))
        return self.bf16(q * self.bf16(1 / np.sqrt(self.bf16(mean + self.eps))))

    def rope(self, x, positions, compressed, inverse=False):
        """Section 4.1 on the trailing dims, adjacent pairs. x: [n, ..., width]."""
        rd = self.cfg["qk_rope_head_dim"]
        f = rope_frequencies(self.cfg, compressed)
        angle = (positions.astype(np.float32)[:, None] * f).astype(self.dtype)  # one float32 product
        angle = angle.reshape((len(positions),) + (1,) * (x.ndim - 2) + (rd // 2,))
        cos, sin = np.cos(angle), np.sin(-angle if inverse else angle)
        a, b = x[..., -rd:][..., 0::2], x[..., -rd:][..., 1::2]
        out = x.copy()
        out[..., -rd:][..., 0::2] = self.bf16(a * cos - b * sin)
        out[..., -rd:][..., 1::2] = self.bf16(a * sin + b * cos)
        return out

    # ------------------------------------------------- mHC (section 3)

    def hc_mixes(self, X, name):
        """Section 3.3 steps 1-2. X: [T, M, D] -> [T, rows of fn]."""
        v = X.reshape(X.shape[0], -1)
        rho = 1 / np.sqrt(np.mean(v * v, axis=-1, keepdims=True) + self.eps)
        return (v @ self.w[name + "_fn"].T) * rho

    def hc_pre(self, X, name):
        """-> u [T, D], post [T, M], C [T, M, M] with C[j][k]: old stream j to new stream k."""
        m_, eps = self.cfg["hc_mult"], self.dtype(self.cfg["hc_eps"])
        mix = self.hc_mixes(X, name)
        scale, base = self.w[name + "_scale"], self.w[name + "_base"]
        pre = sigmoid(mix[:, :m_] * scale[0] + base[:m_]) + eps
        post = 2 * sigmoid(mix[:, m_ : 2 * m_] * scale[1] + base[m_ : 2 * m_])
        C = (mix[:, 2 * m_ :] * scale[2] + base[2 * m_ :]).reshape(-1, m_, m_)
        C = softmax(C, axis=2) + eps
        C = C / (C.sum(axis=1, keepdims=True) + eps)
        for _ in range(self.cfg["hc_sinkhorn_iters"] - 1):
            C = C / (C.sum(axis=2, keepdims=True) + eps)
            C = C / (C.sum(axis=1, keepdims=True) + eps)
        u = sum(pre[:, j, None] * X[:, j] for j in range(m_))
        return self.bf16(u), post, C

    def hc_post(self, y, X, post, C):
        """Section 3.4: the sum runs over the first index of C."""
        m_ = self.cfg["hc_mult"]
        out = np.empty_like(X)
        for k in range(m_):
            out[:, k] = post[:, k, None] * y + sum(C[:, j, k, None] * X[:, j] for j in range(m_))
        return self.bf16(out)

    def hc_head(self, X, name):
        """Section 3.5."""
        pre = sigmoid(self.hc_mixes(X, name) * self.w[name + "_scale"] + self.w[name + "_base"])
        pre = pre + self.dtype(self.cfg["hc_eps"])
        return self.bf16(sum(pre[:, j, None] * X[:, j] for j in range(self.cfg["hc_mult"])))

    # ------------------------------------------------- attention (4 to 7)

    def compress(self, x, name, ratio, width):
        """Sections 5.1-5.3 up to RoPE: pooled, normed, rotated entries [n, width]."""
        kv, gate = self.plain_linear(x, name + ".wkv"), self.plain_linear(x, name + ".wgate")
        ape = self.w[name + ".ape"]
        gate = gate + ape[np.arange(len(x)) % ratio]
        entries = []
        for j in range(len(x) // ratio):
            own = slice(ratio * j, ratio * (j + 1))
            if ratio == 4:
                values, logits = kv[own, width:], gate[own, width:]
                if j > 0:
                    previous = slice(ratio * (j - 1), ratio * j)
                    values = np.concatenate([kv[previous, :width], values])
                    logits = np.concatenate([gate[previous, :width], logits])
            else:
                values, logits = kv[own], gate[own]
            entries.append((softmax(logits, axis=0) * values).sum(axis=0))
        if not entries:
            return np.zeros((0, width), dtype=self.dtype)
        e = self.rms(self.bf16(np.stack(entries)), name + ".norm")
        return self.rope(e, ratio * np.arange(len(e)), compressed=True)

    def select(self, x, qr, name):
        """Section 6: for each query the list of chosen entries of a CSA layer."""
        cfg, t_all = self.cfg, np.arange(len(x))
        heads, width, topk = cfg["index_n_heads"], cfg["index_head_dim"], cfg["index_topk"]
        keys = self.hadamard_fp4(self.compress(x, name + ".compressor", 4, width))
        q = self.quantised_linear(qr, name + ".wq_b").reshape(len(x), heads, width)
        q = self.hadamard_fp4(self.rope(q, t_all, compressed=True))
        scale = self.dtype(width**-0.5 * heads**-0.5)
        weight = self.bf16(self.bf16(self.plain_linear(x, name + ".weights_proj")) * scale)
        chosen = []
        for t in t_all:
            visible = (t + 1) // 4
            if visible <= topk:
                chosen.append(np.arange(visible))
                continue
            dot = np.maximum(self.bf16(q[t] @ keys[:visible].T), 0)  # [heads, visible]
            score = self.bf16(self.bf16(dot * weight[t][:, None]).sum(axis=0))
            self.selections += 1
            self._note_margin("indexer", score, topk)
            chosen.append(top_k(score, topk))
        return chosen

    def attention(self, x, p, ratio):
        cfg, t_all = self.cfg, np.arange(len(x))
        heads, hd, window = cfg["num_attention_heads"], cfg["head_dim"], cfg["sliding_window"]
        compressed = ratio > 0
        qr = self.rms(self.quantised_linear(x, p + "wq_a"), p + "q_norm")  # 4.2
        q = self.head_norm(self.quantised_linear(qr, p + "wq_b").reshape(len(x), heads, hd))
        q = self.rope(q, t_all, compressed)
        kv = self.rms(self.quantised_linear(x, p + "wkv"), p + "kv_norm")  # 4.3
        kv = self.fp8_nope(self.rope(kv, t_all, compressed))
        if compressed:
            entries = self.fp8_nope(self.compress(x, p + "compressor", ratio, hd))
        if ratio == 4:
            chosen = self.select(x, qr, p + "indexer")
        elif ratio == 128:
            chosen = [np.arange((t + 1) // 128) for t in t_all]
        sink, scale = self.w[p + "attn_sink"], self.dtype(hd**-0.5)
        o = np.empty_like(q)
        for t in t_all:  # 4.4, 7.1
            keys = kv[max(0, t - window + 1) : t + 1]
            if compressed:
                keys = np.concatenate([keys, entries[chosen[t]]])
            for h in range(heads):
                z = keys @ q[t, h] * scale
                top = max(z.max(), sink[h])
                prob = np.exp(z - top)
                o[t, h] = self.bf16(self.bf16(prob) @ keys / (prob.sum() + np.exp(sink[h] - top)))
        o = self.rope(o, t_all, compressed, inverse=True)  # 4.5
        groups, rank = cfg["o_groups"], cfg["o_lora_rank"]
        o = o.reshape(len(x), groups, -1)
        wo_a = self.w[p + "wo_a.weight"].reshape(groups, rank, -1)
        a = np.concatenate([self.bf16(o[:, g] @ wo_a[g].T) for g in range(groups)], axis=-1)
        return self.quantised_linear(a, p + "wo_b")

    # ------------------------------------------------- MoE (section 8)

    def expert(self, x, name, weight=None):
        """Section 8.4; weight [n] scales before w2, None for the shared expert."""
        limit = self.dtype(self.cfg["swiglu_limit"])
        g, u = self.quantised_linear(x, name + ".w1"), self.quantised_linear(x, name + ".w3")
        u, g = np.clip(u, -limit, limit), np.minimum(g, limit)
        a = g * sigmoid(g) * u
        if weight is not None:
            a = weight[:, None] * a
        return self.quantised_linear(self.bf16(a), name + ".w2")

    def moe(self, x, p, ids):
        k = self.cfg["num_experts_per_tok"]
        z = self.plain_linear(x, p + "gate")
        score = np.sqrt(np.where(z > 20, z, np.log1p(np.exp(np.minimum(z, 20)))))  # 8.1
        if p + "gate.tid2eid" in self.w:
            experts = self.w[p + "gate.tid2eid"][ids]
        else:
            biased = score + self.w[p + "gate.bias"]
            if k < biased.shape[1]:
                for row in biased:
                    self._note_margin("router", row, k)
            experts = np.stack([top_k(row, k) for row in biased])
        weight = np.take_along_axis(score, experts, axis=1)  # 8.3
        weight = weight / (weight.sum(axis=1, keepdims=True) + self.dtype(1e-20))
        weight = weight * self.dtype(self.cfg["routed_scaling_factor"])
        y = np.zeros_like(x)
        for e in range(self.cfg["n_routed_experts"]):  # 8.5: ascending expert id
            tokens, slot = np.nonzero(experts == e)
            if len(tokens):
                y[tokens] += self.expert(x[tokens], p + f"experts.{e}", weight[tokens, slot])
        return self.bf16(y + self.expert(x, p + "shared_experts"))

    # ------------------------------------------------------------- network

    def block(self, X, p, ratio, ids):
        """Section 3.2."""
        u, post, C = self.hc_pre(X, p + "hc_attn")
        X = self.hc_post(self.attention(self.rms(u, p + "attn_norm"), p + "attn.", ratio), X, post, C)
        u, post, C = self.hc_pre(X, p + "hc_ffn")
        return self.hc_post(self.moe(self.rms(u, p + "ffn_norm"), p + "ffn.", ids), X, post, C)

    def streams(self, ids):
        """The residual streams [T, M, D] after the last layer."""
        X = np.repeat(self.w["embed.weight"][ids][:, None], self.cfg["hc_mult"], axis=1)
        for i in range(self.cfg["num_hidden_layers"]):
            X = self.block(X, f"layers.{i}.", self.cfg["compress_ratios"][i], ids)
        return X

    def head(self, X, hc_name, norm_name):
        return self.plain_linear(self.rms(self.hc_head(X, hc_name), norm_name), "head")

    def logits(self, X):
        return self.head(X, "hc_head", "norm")

    def mtp_logits(self, X, ids, index=0):
        """Section 9.1: row p uses the main streams at p and token p+1, predicts token p+2. [T-1, V]."""
        p = f"mtp.{index}."
        e = self.quantised_linear(self.rms(self.w["embed.weight"][ids[1:]], p + "enorm"), p + "e_proj")
        h = self.quantised_linear(self.rms(X[:-1], p + "hnorm"), p + "h_proj")
        Z = self.bf16(e[:, None] + h)
        Z = self.block(Z, p, self.cfg["compress_ratios"][self.cfg["num_hidden_layers"] + index], ids[1:])
        return self.head(Z, p + "hc_head", p + "norm")

    def _note_margin(self, kind, scores, k):
        ordered = np.sort(scores)[::-1]
        spread = ordered[0] - ordered[-1]
        gap = (ordered[k - 1] - ordered[k]) / spread if spread > 0 else 0.0
        self.margin[kind] = min(self.margin[kind], float(gap))


def read_tokens(path):
    """A JSON list or whitespace-separated ids."""
    with open(path) as f:
        text = f.read()
    ids = json.loads(text) if text.lstrip().startswith("[") else [int(x) for x in text.split()]
    return np.asarray(ids, dtype=np.int64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--logits", required=True)
    parser.add_argument("--mtp")
    parser.add_argument("--numerics", choices=["exact", "reference"], default="exact")
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    args = parser.parse_args()
    model = Reference(args.folder, args.numerics, args.dtype)
    ids = read_tokens(args.tokens)
    X = model.streams(ids)
    np.save(args.logits, model.logits(X).astype(np.float32))
    if args.mtp:
        np.save(args.mtp, model.mtp_logits(X, ids).astype(np.float32))
    print(f"{len(ids)} tokens, closest selection margins: {model.margin}, indexer choices: {model.selections}")


if __name__ == "__main__":
    main()
