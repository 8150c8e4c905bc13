"""Shows that the comparisons would catch the mistakes that matter.

    python mutations.py

Every entry plants one known mistake (most are from model.md section 12.2) into
reference_model.py by replacing a piece of its source, runs the mutant, and
demands that compare.py's bound rejects it: in exact numerics on at least one of
the named configs, or in reference numerics on a one-layer config. A mistake that
passes means the random checkpoints do not exercise it. Exit code 1 then.
"""

import argparse
import os
import sys
import tempfile
import types

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402

import configs  # noqa: E402
import make_checkpoint  # noqa: E402
from compare import EXACT_BOUND, SHARP_BOUND, SHARP_ROWS, oracle, row_errors  # noqa: E402

# (mistake, config, [(old source, new source), ...])
EXACT = [
    ("hc_post with C instead of its transpose", "tiny", [("C[:, j, k, None] * X[:, j]", "C[:, k, j, None] * X[:, j]")]),
    ("post without its factor 2", "tiny", [("post = 2 * sigmoid", "post = sigmoid")]),
    ("Sinkhorn ending with rows", "tiny", [("C = C / (C.sum(axis=2, keepdims=True) + eps)\n            C = C / (C.sum(axis=1, keepdims=True) + eps)", "C = C / (C.sum(axis=1, keepdims=True) + eps)\n            C = C / (C.sum(axis=2, keepdims=True) + eps)")]),
    ("one Sinkhorn round less", "tiny", [('self.cfg["hc_sinkhorn_iters"] - 1', 'self.cfg["hc_sinkhorn_iters"] - 2')]),
    ("mHC statistic per stream", "tiny", [("np.mean(v * v, axis=-1, keepdims=True)", "np.repeat(np.mean(X * X, axis=-1), X.shape[2], axis=1)"), ('(v @ self.w[name + "_fn"].T) * rho', '(v * rho) @ self.w[name + "_fn"].T')]),
    ("plain mean instead of hc_head", "tiny", [('pre = pre + self.dtype(self.cfg["hc_eps"])', "pre = np.ones_like(pre)")]),
    ("RoPE as split halves", "tiny", [("[..., 0::2]", "[..., :rd // 2]"), ("[..., 1::2]", "[..., rd // 2:]")]),
    ("RoPE on the leading dims", "csa", [("x[..., -rd:]", "x[..., :rd]"), ("out[..., -rd:]", "out[..., :rd]")]),
    ("base 10000 in compressed layers", "tiny", [('cfg["compress_rope_theta"] if', 'cfg["rope_theta"] if')]),
    ("compressed profile in window layers", "tiny", [("    if not compressed:\n        return f", ""), ('if compressed else cfg["rope_theta"]', 'if True else 0')]),
    ("no YaRN", "tiny", [("    if not compressed:\n        return f", "    return f")]),
    ("YaRN magnitude on cos and sin", "tiny", [("cos, sin = np.cos(angle), np.sin(-angle if inverse else angle)", "m = 1.277 if compressed else 1.0\n        cos, sin = m * np.cos(angle), m * np.sin(-angle if inverse else angle)")]),
    ("no inverse RoPE on the output", "tiny", [("o = self.rope(o, t_all, compressed, inverse=True)", "")]),
    ("compressed keys not rotated", "tiny", [("return self.rope(e, ratio * np.arange(len(e)), compressed=True)", "return e")]),
    ("compressed keys rotated at the entry index", "tiny", [("ratio * np.arange(len(e))", "np.arange(len(e))")]),
    ("compressed keys rotated at the last token", "tiny", [("ratio * np.arange(len(e))", "ratio * np.arange(len(e)) + ratio - 1")]),
    ("overlap lost", "tiny_csa", [("if j > 0:", "if False:")]),
    ("overlap halves swapped", "tiny_csa", [("kv[own, width:], gate[own, width:]", "kv[own, :width], gate[own, :width]"), ("kv[previous, :width]", "kv[previous, width:]"), ("gate[previous, :width]", "gate[previous, width:]")]),
    ("no position bias in the compressor", "tiny_csa", [("gate = gate + ape[np.arange(len(x)) % ratio]", "")]),
    ("one softmax over all channels' mean", "tiny_csa", [("softmax(logits, axis=0)", "softmax(logits.mean(axis=1, keepdims=True), axis=0)")]),
    ("no ReLU in the indexer", "tiny_csa", [("np.maximum(self.bf16(q[t] @ keys[:visible].T), 0)", "self.bf16(q[t] @ keys[:visible].T)")]),
    ("absolute head weights in the indexer", "tiny_csa", [("dot * weight[t][:, None]", "dot * np.abs(weight[t])[:, None]")]),
    ("indexer query normalised per head", "tiny_csa", [("self.hadamard_fp4(self.rope(q, t_all, compressed=True))", "self.rope(self.head_norm(q), t_all, compressed=True)")]),
    ("index query not rotated", "tiny_csa", [("self.hadamard_fp4(self.rope(q, t_all, compressed=True))", "q")]),
    ("Hadamard on index keys only", "tiny_csa", [("keys = self.hadamard_fp4(self.compress(x, name + \".compressor\", 4, width))", "keys = self.compress(x, name + \".compressor\", 4, width) @ formats.hadamard_matrix(width)")]),
    ("the entry completed now is not visible", "tiny", [("visible = (t + 1) // 4", "visible = t // 4"), ("np.arange((t + 1) // 128)", "np.arange(t // 128)")]),
    ("entries visible before they are complete", "tiny_csa", [("visible = (t + 1) // 4", "visible = min((t + 4) // 4, len(x) // 4)")]),
    ("all entries attended, no selection", "tiny_csa", [("if visible <= topk:", "if True:")]),
    ("newest entries instead of the best", "tiny_csa", [("chosen.append(top_k(score, topk))", "chosen.append(np.arange(visible - topk, visible))")]),
    ("window one key too long", "swa", [("t - window + 1", "t - window")]),
    ("window one key too short", "swa", [("t - window + 1", "t - window + 2")]),
    ("no sink", "swa", [("+ np.exp(sink[h] - top)", "")]),
    ("sink scaled like a score", "swa", [("np.exp(sink[h] - top)", "np.exp(sink[h] * scale - top)")]),
    ("no per-head query norm", "swa", [("q = self.head_norm(self.quantised_linear(qr, p + \"wq_b\").reshape(len(x), heads, hd))", "q = self.quantised_linear(qr, p + \"wq_b\").reshape(len(x), heads, hd)")]),
    ("output groups in the wrong order", "flash", [("wo_a[g].T", "wo_a[groups - 1 - g].T")]),
    ("shared expert not clamped", "tiny", [("limit = self.dtype(self.cfg[\"swiglu_limit\"])", "limit = self.dtype(self.cfg[\"swiglu_limit\"]) if weight is not None else np.inf")]),
    ("routed experts not clamped", "tiny", [("limit = self.dtype(self.cfg[\"swiglu_limit\"])", "limit = self.dtype(self.cfg[\"swiglu_limit\"]) if weight is None else np.inf")]),
    ("gate clamped from below too", "tiny", [("np.minimum(g, limit)", "np.clip(g, -limit, limit)")]),
    ("up not clamped from below", "tiny", [("np.clip(u, -limit, limit)", "np.minimum(u, limit)")]),
    ("w1 and w3 exchanged", "tiny", [('name + ".w1"), self.quantised_linear(x, name + ".w3")', 'name + ".w3"), self.quantised_linear(x, name + ".w1")')]),
    ("bias in the routing weights", "tiny", [("weight = np.take_along_axis(score, experts, axis=1)", "weight = np.take_along_axis(score + self.w.get(p + \"gate.bias\", 0), experts, axis=1)")]),
    ("bias ignored in the selection", "tiny", [('biased = score + self.w[p + "gate.bias"]', "biased = score")]),
    ("hash layers weighted uniformly", "tiny", [("weight = np.take_along_axis(score, experts, axis=1)", "weight = np.take_along_axis(score * 0 + 1 if p + \"gate.tid2eid\" in self.w else score, experts, axis=1)")]),
    ("hash layers routed by score", "tiny", [('if p + "gate.tid2eid" in self.w:', "if False:"), ('score + self.w[p + "gate.bias"]', 'score + self.w.get(p + "gate.bias", 0)')]),
    ("no renormalisation of routing weights", "tiny", [("weight = weight / (weight.sum(axis=1, keepdims=True) + self.dtype(1e-20))", "")]),
    ("no route scale", "tiny", [('weight = weight * self.dtype(self.cfg["routed_scaling_factor"])', "")]),
    ("softplus without the square root", "tiny", [("score = np.sqrt(", "score = (")]),
    ("epsilon of the config ignored", "mixed", [('self.dtype(self.cfg["rms_norm_eps"])', "self.dtype(1e-3)")]),
]

# Not here, because no bound can see them: the group size of FP8 quantisation (with
# power-of-two scales it only moves where subnormals begin), a common factor in
# hc_head (the final RMSNorm removes it), and float32 instead of bf16 index scores
# (a few boundary picks; model.md 6.4 allows both).
REFERENCE = [
    ("no FP8 on the window KV", "tiny_csa", [("kv = self.fp8_nope(self.rope(kv, t_all, compressed))", "kv = self.rope(kv, t_all, compressed)")]),
    ("no FP8 on compressed entries", "tiny_csa", [("entries = self.fp8_nope(self.compress(x, p + \"compressor\", ratio, hd))", "entries = self.compress(x, p + \"compressor\", ratio, hd)")]),
    ("FP8 on the rotary dims too", "tiny_csa", [("return np.concatenate([self.fp8(x[..., :nope], 64), x[..., nope:]], axis=-1)", "return self.fp8(x, 64)")]),
    ("FP8 before RoPE", "tiny_csa", [("x[..., nope:]], axis=-1)", "self.fp8(x[..., nope:], 64)], axis=-1)")]),
    ("no FP4 on the index", "tiny_csa", [("return formats.fp4q(self.bf16(x @ h)).astype(self.dtype)", "return self.bf16(x @ h)")]),
    ("FP4 without Hadamard", "tiny_csa", [("return formats.fp4q(self.bf16(x @ h)).astype(self.dtype)", "return formats.fp4q(x).astype(self.dtype)")]),
    ("activations not quantised", "tiny_csa", [("self.fp8(x, 128) @", "x @")]),
    ("activation scale not a power of two", "one_swa", [("self.fp8(x, 128) @", "(self.fp8(x * 0.7, 128) / 0.7) @")]),
    ("wo_a input quantised", "tiny_csa", [("self.bf16(o[:, g] @ wo_a[g].T)", "self.bf16(self.fp8(o[:, g], 128) @ wo_a[g].T)")]),
    ("routing weight after w2", "tiny_csa", [("a = weight[:, None] * a", "pass"), ('return self.quantised_linear(self.bf16(a), name + ".w2")', 'y = self.quantised_linear(self.bf16(a), name + ".w2")\n        return y if weight is None else weight[:, None] * y')]),
    ("streams kept in float32", "tiny_csa", [("return self.bf16(out)", "return out")]),
    ("compressor inputs rounded to bf16", "tiny_csa", [('kv, gate = self.plain_linear(x, name + ".wkv"), self.plain_linear(x, name + ".wgate")', 'kv, gate = self.bf16(self.plain_linear(x, name + ".wkv")), self.bf16(self.plain_linear(x, name + ".wgate"))')]),
    ("per-head query norm in float32", "tiny_csa", [("mean = self.bf16(np.mean(self.bf16(q * q), axis=-1, keepdims=True))\n        return self.bf16(q * self.bf16(1 / np.sqrt(self.bf16(mean + self.eps))))", "return self.bf16(q / np.sqrt(np.mean(q * q, axis=-1, keepdims=True) + self.eps))")]),
    ("attention weights not rounded to bf16", "tiny_csa", [("self.bf16(self.bf16(prob) @ keys", "self.bf16(prob @ keys")]),
    ("denominator from the rounded weights", "tiny_csa", [("prob = np.exp(z - top)", "prob = self.bf16(np.exp(z - top))")]),
]


def mutant(changes):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference_model.py")
    with open(path) as f:
        source = f.read()
    for old, new in changes:
        if old not in source:
            sys.exit(f"mutations.py is out of date: reference_model.py no longer holds {old!r}")
        source = source.replace(old, new)
    module = types.ModuleType("mutant")
    module.__file__ = path
    exec(compile(source, path, "exec"), module.__dict__)
    return module.Reference


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    survived, truth = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for numerics, entries in (("exact", EXACT), ("reference", REFERENCE)):
            for mistake, name, changes in entries:
                cfg, seed, tokens = configs.config(name)
                folder, ids = os.path.join(temporary, name), make_checkpoint.prompt(cfg, seed, tokens)
                if not os.path.exists(folder):
                    make_checkpoint.write(cfg, seed, folder)
                if (name, numerics) not in truth:
                    truth[name, numerics] = oracle(folder, ids, numerics, "float64")[0]
                model = mutant(changes)(folder, numerics)
                with np.errstate(all="ignore"):
                    errors = row_errors(model.logits(model.streams(ids)), truth[name, numerics])
                if numerics == "exact":
                    caught = not errors.max() < EXACT_BOUND
                else:
                    caught = not (errors < SHARP_BOUND).mean() >= SHARP_ROWS
                first = int(np.argmax(~(errors < (EXACT_BOUND if numerics == "exact" else SHARP_BOUND))))
                print(
                    f"{numerics:9} {mistake:44} {name:9} median {np.median(errors):8.1e} max {errors.max():8.1e} "
                    f"{f'caught, first at row {first}' if caught else 'NOT CAUGHT'}"
                )
                if not caught:
                    survived.append(f"{numerics}: {mistake}")
    if survived:
        print(f"{len(survived)} mistake(s) would pass:", *survived, sep="\n  ")
        sys.exit(1)
    print("every planted mistake is caught")


if __name__ == "__main__":
    main()
