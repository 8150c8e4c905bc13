"""The shape of nano: config.json as it is written to the checkpoint."""


def config(vocab_size):
    return {
        "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "vocab_size": vocab_size,
        "bos_token_id": 0, "eos_token_id": 1, "hidden_size": 256, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 128, "qk_rope_head_dim": 64,
        "q_lora_rank": 128, "o_groups": 2, "o_lora_rank": 128, "moe_intermediate_size": 128,
        "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "num_hash_layers": 2,
        "scoring_func": "sqrtsoftplus", "norm_topk_prob": True, "topk_method": "noaux_tc",
        "routed_scaling_factor": 1.5, "swiglu_limit": 10.0, "sliding_window": 128, "index_n_heads": 4,
        "index_head_dim": 128, "index_topk": 32, "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6,
        "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False, "rope_theta": 10000,
        "compress_rope_theta": 160000,
        "rope_scaling": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536, "beta_fast": 32,
                         "beta_slow": 1},
        "max_position_embeddings": 16384, "num_nextn_predict_layers": 1, "compress_ratios": [0, 4, 128, 4, 0],
        "expert_dtype": "fp4",
        "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
                                "scale_fmt": "ue8m0", "weight_block_size": [128, 128]},
        "torch_dtype": "bfloat16", "attention_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02,
        "use_cache": True,
    }
