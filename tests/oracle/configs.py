"""The small DeepSeek-V4 shapes that the oracles run.

Each entry overrides the base config.json below. Together they cover every layer
kind, both published layer orders, several widths, head sizes, rotary sizes,
windows, group counts and router sizes. `tokens` is the prompt length that
exercises the config fully; `seed` fixes weights and prompt. Seeds are chosen so
that in exact numerics no top-k is closer to a tie than 2e-5 of the score range
(reference_model.py prints it): a float32 program cannot flip a selection.
"""

import copy

_BASE = {
    "architectures": ["DeepseekV4ForCausalLM"],
    "model_type": "deepseek_v4",
    "vocab_size": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_size": 128,
    "num_hidden_layers": 0,  # set from compress_ratios
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "qk_rope_head_dim": 64,
    "q_lora_rank": 128,
    "o_groups": 1,
    "o_lora_rank": 128,
    "moe_intermediate_size": 128,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "num_hash_layers": 0,
    "scoring_func": "sqrtsoftplus",
    "norm_topk_prob": True,
    "topk_method": "noaux_tc",
    "routed_scaling_factor": 1.5,
    "swiglu_limit": 10.0,
    "sliding_window": 128,
    "index_n_heads": 16,
    "index_head_dim": 128,
    "index_topk": 16,
    "hc_mult": 4,
    "hc_sinkhorn_iters": 20,
    "hc_eps": 1e-6,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "rope_theta": 10000,
    "compress_rope_theta": 160000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 16,
        "original_max_position_embeddings": 65536,
        "beta_fast": 32,
        "beta_slow": 1,
    },
    "max_position_embeddings": 1048576,
    "num_nextn_predict_layers": 1,
    "compress_ratios": [],
    "expert_dtype": "fp4",
    "quantization_config": {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "scale_fmt": "ue8m0",
        "weight_block_size": [128, 128],
    },
    "torch_dtype": "bfloat16",
    "use_cache": True,
}

# The last ratio of each list belongs to the MTP block.
_SMALL = {
    # Flash's order of layers; three hash layers; selection among 175 entries.
    "flash": dict(
        seed=25101, tokens=700, hidden_size=256, num_attention_heads=4, o_groups=2, moe_intermediate_size=256,
        n_routed_experts=8, num_hash_layers=3, compress_ratios=[0, 0, 4, 128, 4, 0], index_topk=16,
        swiglu_limit=2.5,
    ),
    # Pro's order; wider heads; more groups; three experts per token.
    "pro": dict(
        seed=59102, tokens=700, vocab_size=320, hidden_size=384, num_attention_heads=8, head_dim=192, o_groups=4,
        q_lora_rank=256, n_routed_experts=12, num_experts_per_tok=3, num_hash_layers=3, routed_scaling_factor=2.5,
        compress_ratios=[128, 128, 4, 128, 4, 0], index_topk=64, index_n_heads=24,
    ),
    # Window attention only, short window, no hash layer, odd vocabulary.
    "swa": dict(
        seed=103, tokens=300, vocab_size=199, compress_ratios=[0, 0, 0, 0], sliding_window=32, swiglu_limit=1.5,
    ),
    # CSA only; head_dim 96 with 32 rotary dims; 64-wide index keys; strong YaRN.
    "csa": dict(
        seed=7104, tokens=400, num_attention_heads=4, head_dim=96, qk_rope_head_dim=32, index_head_dim=64,
        index_topk=8, sliding_window=64, num_hash_layers=1, compress_ratios=[4, 4, 4, 0],
        max_position_embeddings=1024,
        rope_scaling={"type": "yarn", "factor": 4, "original_max_position_embeddings": 256, "beta_fast": 32,
                      "beta_slow": 1},
    ),
    # HCA only; six of eight experts; a window shorter than the ratio.
    "hca": dict(
        seed=1105, tokens=700, hidden_size=256, head_dim=192, sliding_window=96, n_routed_experts=8,
        num_experts_per_tok=6, num_hash_layers=2, compress_ratios=[128, 128, 128, 0], swiglu_limit=1.5,
    ),
    # An order neither release uses; other epsilons; o_lora_rank below the 128-row
    # scale tile, so a scale tile of wo_a spans two output groups.
    "mixed": dict(
        seed=23106, tokens=520, num_attention_heads=8, o_groups=4, o_lora_rank=64, q_lora_rank=256,
        n_routed_experts=8, num_experts_per_tok=6, num_hash_layers=1, compress_ratios=[4, 0, 128, 4, 0, 0],
        index_topk=32, rms_norm_eps=1e-5, hc_eps=1e-5, routed_scaling_factor=2.5, swiglu_limit=2.0,
    ),
    # One layer each: start here when something is wrong, and the sharp check of
    # the `reference` roundings (in a deep random model they amplify each other).
    "one_swa": dict(seed=108, tokens=200, compress_ratios=[0, 0], swiglu_limit=2.0),
    "one_csa": dict(seed=109, tokens=300, compress_ratios=[4, 0], num_hash_layers=1, swiglu_limit=2.0),
    "one_hca": dict(seed=110, tokens=400, compress_ratios=[128, 0], swiglu_limit=2.0),
    # The committed goldens (tests/golden/logits). tiny: one layer of each kind.
    # tiny_csa: a single CSA layer, for a sharp check of the reference roundings, and
    # an MTP block.
    "tiny": dict(
        seed=1107, tokens=180, vocab_size=96, num_hash_layers=1, compress_ratios=[0, 4, 128], index_n_heads=8,
        index_topk=8, sliding_window=48, swiglu_limit=2.0, num_nextn_predict_layers=0,
    ),
    "tiny_csa": dict(
        seed=111, tokens=140, vocab_size=96, compress_ratios=[4, 0], index_n_heads=8, index_topk=8, sliding_window=48,
        swiglu_limit=2.0,
    ),
}

NAMES = list(_SMALL)


def config(name):
    """(config.json dict, seed, tokens) of one named shape."""
    over = copy.deepcopy(_SMALL[name])
    seed, tokens = over.pop("seed"), over.pop("tokens")
    out = {**copy.deepcopy(_BASE), **over}
    out["num_hidden_layers"] = len(out["compress_ratios"]) - out["num_nextn_predict_layers"]
    return out, seed, tokens
