"""The weights of nano by name: shapes and stored kinds, the hash routing tables, the initial values, and the values a
checkpoint holds of the float32 master weights (FP8, FP4 and bfloat16 roundings)."""
import torch

import roundings as R


def shapes(c):
    """Every trained tensor: name -> (shape, kind), kind in fp8, fp4, bf16, f32. Stacked experts, fused shared w13."""
    D, H, d, q = c["hidden_size"], c["num_attention_heads"], c["head_dim"], c["q_lora_rank"]
    G, Ro, E, I, V = (c["o_groups"], c["o_lora_rank"], c["n_routed_experts"], c["moe_intermediate_size"],
                      c["vocab_size"])
    Hi, di, M = c["index_n_heads"], c["index_head_dim"], c["hc_mult"]
    mix = (2 + M) * M
    s = {"embed.weight": ((V, D), "bf16"), "head.weight": ((V, D), "bf16"), "norm.weight": ((D,), "bf16")}

    def head(p):
        s[p + "hc_head_fn"], s[p + "hc_head_base"], s[p + "hc_head_scale"] = ((M, M * D), "f32"), ((M,), "f32"), ((1,), "f32")

    def layer(p, r, hashed):
        s[p + "attn_norm.weight"] = s[p + "ffn_norm.weight"] = ((D,), "bf16")
        a = p + "attn."
        s[a + "wq_a.weight"], s[a + "q_norm.weight"] = ((q, D), "fp8"), ((q,), "bf16")
        s[a + "wq_b.weight"], s[a + "wkv.weight"], s[a + "kv_norm.weight"] = ((H * d, q), "fp8"), ((d, D), "fp8"), ((d,), "bf16")
        s[a + "attn_sink"] = ((H,), "f32")
        s[a + "wo_a.weight"], s[a + "wo_b.weight"] = ((G * Ro, H * d // G), "fp8"), ((D, G * Ro), "fp8")
        for hc in ("hc_attn", "hc_ffn"):
            s[p + hc + "_fn"], s[p + hc + "_base"], s[p + hc + "_scale"] = ((mix, M * D), "f32"), ((mix,), "f32"), ((3,), "f32")
        f = p + "ffn."
        s[f + "gate.weight"] = ((E, D), "bf16")
        if not hashed:
            s[f + "gate.bias"] = ((E,), "f32")
        s[f + "experts.w13"], s[f + "experts.w2"] = ((E, 2 * I, D), "fp4"), ((E, D, I), "fp4")
        s[f + "shared_experts.w13.weight"], s[f + "shared_experts.w2.weight"] = ((2 * I, D), "fp8"), ((D, I), "fp8")

        def comp(n, width, coff):
            s[n + "ape"] = ((r, coff * width), "f32")
            s[n + "wkv.weight"] = s[n + "wgate.weight"] = ((coff * width, D), "bf16")
            s[n + "norm.weight"] = ((width,), "bf16")
        if r:
            comp(a + "compressor.", d, 2 if r == 4 else 1)
        if r == 4:
            s[a + "indexer.wq_b.weight"], s[a + "indexer.weights_proj.weight"] = ((Hi * di, q), "fp8"), ((Hi, D), "bf16")
            comp(a + "indexer.compressor.", di, 2)

    for i in range(c["num_hidden_layers"]):
        layer(f"layers.{i}.", c["compress_ratios"][i], i < c["num_hash_layers"])
    head("")
    layer("mtp.0.", 0, False)
    s["mtp.0.e_proj.weight"] = s["mtp.0.h_proj.weight"] = ((D, D), "fp8")
    for n in ("enorm", "hnorm", "norm"):
        s[f"mtp.0.{n}.weight"] = ((D,), "bf16")
    head("mtp.0.")
    return s


def hash_table(c, layer):
    """tid2eid [V, K]: every token gets K different experts, each expert the same number of tokens, by a fixed seed."""
    g = torch.Generator().manual_seed(20260424 + layer)
    V, E, k = c["vocab_size"], c["n_routed_experts"], c["num_experts_per_tok"]
    base = torch.arange(V) % E
    perm = torch.randperm(V, generator=g)
    out = torch.empty(V, k, dtype=torch.long)
    for j in range(k):
        out[perm, j] = (base + j * (1 + (torch.arange(V) // E) % (E // k))) % E
    return out


def initial(c, seed):
    g = torch.Generator().manual_seed(seed)
    out = {}
    L = c["num_hidden_layers"]
    site = 0
    for n, (shape, kind) in shapes(c).items():
        if n.endswith("norm.weight") or n.endswith("hc_head_scale") or ".enorm" in n or ".hnorm" in n:
            v = torch.ones(shape)
            if n.endswith("hc_head_scale"):
                v = v * 0.1
        elif n.endswith("_scale"):
            v = torch.full(shape, 0.1)
        elif n.endswith("hc_head_base"):
            v = torch.zeros(shape)
        elif n.endswith("_base"):
            v = torch.zeros(shape)
            v[:4] = -1.5
            v[site % 4] = 1.5
            v[4:8] = torch.randn(4, generator=g)
            v[8:] = (torch.eye(4) * 4).flatten()
            site += 1
        elif n.endswith("ape"):
            v = torch.randn(shape, generator=g) * 0.5
        elif n.endswith("attn_sink") or n.endswith("gate.bias"):
            v = torch.zeros(shape)
        elif n.endswith("_fn"):
            v = torch.randn(shape, generator=g) * 0.02
        elif n == "embed.weight":
            v = torch.randn(shape, generator=g) * 0.5
        elif n == "head.weight":
            v = torch.randn(shape, generator=g) * 0.02
        else:
            v = torch.randn(shape, generator=g) * shape[-1] ** -0.5
            if n.endswith("wo_b.weight") or n.endswith("w2.weight") or n.endswith("w2"):
                v = v * 0.5
        out[n] = v
    return out


@torch.no_grad()
def stored(master, c):
    """The weights as the checkpoint will hold them (FP8, FP4, bfloat16 values), ready for `Nano`."""
    out = {}
    for n, (shape, kind) in shapes(c).items():
        m = master[n]
        if kind == "fp8":
            v = R.fp8_weight(m).to(torch.bfloat16)
        elif kind == "fp4":
            v = R.fp4q(m).to(torch.bfloat16)
        elif kind == "bf16":
            v = m.to(torch.bfloat16)
        else:
            v = m.clone()
        out[n] = v
    for i in range(c["num_hash_layers"]):
        out[f"layers.{i}.ffn.gate.tid2eid"] = hash_table(c, i)
    return out
