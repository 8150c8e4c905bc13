"""Logits of a checkpoint through Hugging Face transformers' DeepseekV4ForCausalLM.

    python transformers_logits.py FOLDER --tokens FILE --logits OUT.npy [--dtype float32|float64]

The weights are de-quantised by formats.py (not by transformers), renamed per
checkpoint.md section 5, and run in float32 with eager attention: an independent
implementation of the `exact` numerics. Nothing of transformers is patched; see
README.md for what was checked against the specification. MTP is not there.
"""

import argparse
import json
import os
import re
import warnings

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


def state_dict(folder, cfg):
    """Our de-quantised tensors under transformers' names."""
    weights = formats.dequantised(formats.load_checkpoint(folder))
    weights = {n: v for n, v in weights.items() if not n.startswith("mtp.")}
    out = {}
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


def load(folder, dtype=torch.float32):
    with open(os.path.join(folder, "config.json")) as f:
        cfg = json.load(f)
    plain = {k: v for k, v in cfg.items() if k not in ("quantization_config", "expert_dtype", "torch_dtype")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = DeepseekV4Config(**plain)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = DeepseekV4ForCausalLM(config)
    finally:
        torch.set_default_dtype(previous)
    model.load_state_dict(state_dict(folder, cfg), strict=True)
    return model.to(dtype).eval()


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
