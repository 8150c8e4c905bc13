"""Checks formats.py and reference_model.py against the numbers printed in the specs.

    python spec_vectors.py

model.md 3.6 (mHC), 4.1 (RoPE frequencies), checkpoint.md 6 and 7 (formats).
"""

import numpy as np

import formats
from reference_model import Reference, rope_frequencies


def hyper_connection():
    """model.md 3.6: coefficients for given mixes, scale and base."""
    index = np.arange(24)
    model = Reference.__new__(Reference)
    model.cfg = {"hc_mult": 4, "hc_eps": 1e-6, "hc_sinkhorn_iters": 20}
    model.rounding, model.dtype = False, np.float64
    model.w = {"s_scale": np.array([0.5, 0.25, 1.5]), "s_base": ((5 * index) % 7 - 3) / 8}
    model.hc_mixes = lambda X, name: (((7 * index) % 11 - 5) / 4)[None]
    u, post, C = model.hc_pre(np.eye(4)[None], "s")  # one-hot streams: u is `pre`
    expect = """0.1358101 0.5331501 0.1952284 0.1358104 0.2856347 0.0181250 0.4106048 0.2856346
                0.1066770 0.4187812 0.3678634 0.1066774 0.4718771 0.0299427 0.0263025 0.4718766"""
    np.testing.assert_allclose(u[0], [0.2689424, 0.6224603, 0.4378245, 0.5926676], atol=6e-8)
    np.testing.assert_allclose(post[0], [1.2153263, 0.9687602, 1.0624187, 0.8146668], atol=6e-8)
    np.testing.assert_allclose(C[0].ravel(), [float(x) for x in expect.split()], atol=6e-8)
    # C[j][k] carries old stream j to new stream k.
    out = model.hc_post(np.zeros((1, 4)), np.eye(4)[None], post, C)
    np.testing.assert_allclose(out[0], C[0].T, atol=1e-12)


def rope():
    cfg = {"qk_rope_head_dim": 64, "rope_theta": 10000, "compress_rope_theta": 160000}
    cfg["rope_scaling"] = {"factor": 16, "original_max_position_embeddings": 65536, "beta_fast": 32, "beta_slow": 1}
    window = {0: 1, 1: 0.749894202, 8: 0.100000001, 16: 0.00999999978, 31: 0.000133352150}
    compressed = {0: 1, 1: 0.687656045, 8: 0.0500000007, 15: 0.00363553851, 16: 0.00226562493, 17: 0.00139680132}
    compressed |= {20: 0.000296977785, 24: 1.95312532e-05, 25: 5.37231244e-06, 31: 5.6805294e-07}
    for is_compressed, table in ((False, window), (True, compressed)):
        f = rope_frequencies(cfg, is_compressed)
        np.testing.assert_allclose([f[i] for i in table], list(table.values()), rtol=3e-7)


def number_formats():
    assert formats.e8m0_value(0) == np.float32(2.0**-127) and formats.e8m0_value(127) == 1
    for code, value in {0x38: 1, 0x3C: 1.5, 0x40: 2, 0x48: 4, 0x01: 2.0**-9, 0x08: 2.0**-6, 0x7E: 448, 0xFE: -448}.items():
        assert formats.E4M3[code] == value and formats.e4m3_encode(value) == code
    for x, y in {17: 16, 19: 20, 1.0625: 1, 1.1875: 1.25, 2.0**-10: 0, 440: 448, 1e9: 448}.items():
        assert formats.E4M3[formats.e4m3_encode(x)] == y, x
    for x, y in {0.25: 0, 0.75: 1, 1.25: 1, 1.75: 2, 2.5: 2, 3.5: 4, 5: 4, 7: 6, -5: -4}.items():
        assert formats.E2M1[formats.e2m1_encode(x)] == y, x
    finite = [c for c in range(256) if np.isfinite(formats.E4M3[c])]
    assert [int(formats.e4m3_encode(formats.E4M3[c])) for c in finite] == finite
    assert [int(formats.e2m1_encode(v)) for v in formats.E2M1] == list(range(16))
    # Packing: even k in the low nibble.
    row = np.zeros((1, 32))
    row[0, :4] = 0.125, -0.25, 0.75, 1.5
    packed, scale = formats.fp4_weight(row)
    assert (packed[0, 0], packed[0, 1], scale[0, 0]) == (0xA1, 0x75, 125)
    np.testing.assert_array_equal(formats.fp4_dequant(packed, scale), row)
    # Scales: rounded up to a power of two, from the bits.
    for amax, e in {1.0: -8, 3.5: -7, 448: 0, 449: 1, 0: -22}.items():
        assert formats.fp8_scale_exponent(np.float32(amax)) == e, amax
    for amax, e in {6: 0, 6.1: 1, 1.0: -2, 0: -126}.items():
        assert formats.fp4_scale_exponent(np.float32(amax)) == e, amax
    x = np.zeros(64, dtype=np.float32)
    x[:4] = 1, -2, 0.30078125, 100
    np.testing.assert_array_equal(formats.fp8q(x, 64)[:4], [1, -2, 0.3125, 96])
    h = formats.hadamard_matrix(128)
    assert np.isclose(h[3, 5], -(128**-0.5)) and np.allclose(h @ h, np.eye(128), atol=1e-12)
    # bfloat16: ties to even.
    np.testing.assert_array_equal(formats.bf16_round(np.float32([1 + 2.0**-8, 1 + 3 * 2.0**-8])), [1, 1 + 2.0**-6])


if __name__ == "__main__":
    hyper_connection()
    rope()
    number_formats()
    print("all numbers of the specifications are reproduced")
