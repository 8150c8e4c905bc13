"""Logits of a checkpoint through Hugging Face transformers' DeepseekV4ForCausalLM.

    python transformers_logits.py FOLDER --tokens FILE --logits OUT.npy [--dtype float32|float64]

The weights are de-quantised by formats.py (not by transformers), renamed per
checkpoint.md section 5, and run in float32 with eager attention: an independent
implementation of the `exact` numerics. Nothing of transformers is patched; see
README.md for what was checked against the specification. transformers has no MTP
block; mtp_logits() builds it from one more of its layers and four small tensors.
"""

import argparse
import json
import os
import re

import numpy as np
import torch
from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

import formats
from reference_model import read_tokens

_RENAMES = [
    (r"^embed\.", "model.embed_tokens."),
    (r"^head\.", "lm_head."),
    (r"^norm\.", "model.norm."),
    (r"^hc_head_(fn|base|scale)$", r"model.hc_head.hc_\1"),
    (r"^layers\.", "model.layers."),
    (r"\.attn_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
    (r"\.hc_(attn|ffn)_(fn|base|scale)$", r".\1_hc.\2"),
    (r"\.attn\.indexer\.wq_b\.", ".attn.compressor.indexer.q_b_proj."),
    (r"\.attn\.indexer\.weights_proj\.", ".attn.compressor.indexer.scorer.weights_proj."),
    (r"\.attn\.indexer\.compressor\.", ".attn.compressor.indexer."),
    (r"(compressor\..*|compressor\.)wkv\.", r"\1kv_proj."),
    (r"(compressor\..*|compressor\.)wgate\.", r"\1gate_proj."),
    (r"(compressor\..*|compressor\.)norm\.", r"\1kv_norm."),
    (r"(compressor\..*|compressor\.)ape$", r"\1position_bias"),
    (r"\.attn\.wq_a\.", ".attn.q_a_proj."),
    (r"\.attn\.wq_b\.", ".attn.q_b_proj."),
    (r"\.attn\.wkv\.", ".attn.kv_proj."),
    (r"\.attn\.wo_a\.", ".attn.o_a_proj."),
    (r"\.attn\.wo_b\.", ".attn.o_b_proj."),
    (r"\.attn\.q_norm\.", ".attn.q_a_norm."),
    (r"\.attn\.attn_sink$", ".attn.sinks"),
    (r"\.attn\.", ".self_attn."),
    (r"\.ffn\.gate\.bias$", ".ffn.gate.e_score_correction_bias"),
    (r"shared_experts\.w1\.", "shared_experts.gate_proj."),
    (r"shared_experts\.w3\.", "shared_experts.up_proj."),
    (r"shared_experts\.w2\.", "shared_experts.down_proj."),
    (r"\.ffn\.", ".mlp."),
]


_MTP_OWN = ("e_proj.", "h_proj.", "enorm.", "hnorm.")


def state_dict(weights, cfg):
    """De-quantised tensors (main model only) under transformers' names."""
    weights, out = dict(weights), {}
    for i in range(cfg["num_hidden_layers"]):
        p, experts = f"layers.{i}.ffn.experts.", range(cfg["n_routed_experts"])
        out[f"model.layers.{i}.mlp.experts.gate_up_proj"] = np.stack(
            [np.concatenate([weights.pop(f"{p}{e}.w1.weight"), weights.pop(f"{p}{e}.w3.weight")]) for e in experts]
        )
        out[f"model.layers.{i}.mlp.experts.down_proj"] = np.stack([weights.pop(f"{p}{e}.w2.weight") for e in experts])
    for name, value in weights.items():
        for pattern, target in _RENAMES:
            name = re.sub(pattern, target, name)
        assert name not in out, name
        out[name] = value
    return {n: torch.from_numpy(np.array(v)) for n, v in out.items()}


def build(weights, cfg, dtype=torch.float32):
    """A transformers model with exactly these de-quantised tensors."""
    plain = {k: v for k, v in cfg.items() if k not in ("quantization_config", "expert_dtype", "torch_dtype")}
    config = DeepseekV4Config(**plain)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = DeepseekV4ForCausalLM(config)
    finally:
        torch.set_default_dtype(previous)
    model.load_state_dict(state_dict(weights, cfg), strict=True)
    return model.to(dtype).eval()


def read(folder):
    with open(os.path.join(folder, "config.json")) as f:
        return formats.dequantised(formats.load_checkpoint(folder)), json.load(f)


def load(folder, dtype=torch.float32):
    weights, cfg = read(folder)
    return build({n: v for n, v in weights.items() if not n.startswith("mtp.")}, cfg, dtype)


def mtp_logits(folder, ids, dtype=torch.float32):
    """[T-1, V]: row p joins the main streams at p with token p+1 (model.md section 9.1)."""
    weights, cfg = read(folder)
    layers = cfg["num_hidden_layers"]
    own, main = {}, {}
    for name, value in weights.items():
        part = name.removeprefix("mtp.0.")
        if part == name:
            if name not in ("norm.weight", "hc_head_fn", "hc_head_base", "hc_head_scale"):
                main[name] = value
        elif part.startswith(_MTP_OWN):
            own[part] = torch.from_numpy(value.copy()).to(dtype)
        else:  # the block becomes one more layer; its norm and hc_head the final ones
            main[part if part.startswith(("norm.", "hc_head_")) else f"layers.{layers}.{part}"] = value
    model = build(main, {**cfg, "num_hidden_layers": layers + 1}, dtype)
    ids = torch.as_tensor(ids, dtype=torch.long)
    following = torch.cat([ids[1:], ids[:1]])  # the last row has no next token and is dropped

    def norm(x, weight):
        return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + cfg["rms_norm_eps"])

    def join(_module, args, kwargs):
        e = norm(model.model.embed_tokens(following), own["enorm.weight"]) @ own["e_proj.weight"].T
        h = norm(args[0], own["hnorm.weight"]) @ own["h_proj.weight"].T
        return (e[None, :, None] + h,), kwargs

    model.model.layers[layers].register_forward_pre_hook(join, with_kwargs=True)
    with torch.no_grad():
        return model(input_ids=ids[None], use_cache=False).logits[0, :-1].float().numpy()


def logits(model, ids, chunk=0):
    """[T, V] float32. chunk 0: one pass without a cache; else prefill in chunks with one."""
    ids = torch.as_tensor(ids, dtype=torch.long)[None]
    with torch.no_grad():
        if not chunk:
            return model(input_ids=ids, use_cache=False).logits[0].float().numpy()
        cache, parts = None, []
        for begin in range(0, ids.shape[1], chunk):
            out = model(input_ids=ids[:, begin : begin + chunk], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            parts.append(out.logits[0].float())
        return torch.cat(parts).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--logits", required=True)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--chunk", type=int, default=0, help="prefill in chunks through transformers' cache")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.folder, getattr(torch, args.dtype))
    np.save(args.logits, logits(model, read_tokens(args.tokens), args.chunk))


if __name__ == "__main__":
    main()
