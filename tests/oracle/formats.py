"""Number formats and the safetensors container, in plain numpy.

What lives here: E4M3, E8M0, E2M1 and bfloat16 coding, the three value-changing
roundings of the model (fp8q, fp4q, Hadamard + fp4q), and a minimal safetensors
reader and writer. Written from checkpoint.md sections 2, 6 and 7. It shares no
code with the C++ program: it is a second opinion about every byte.
"""

import json
import os

import numpy as np

# ----------------------------------------------------------------- bfloat16


def bf16_round(x):
    """Round float32 values to the nearest bfloat16 (ties to even); float32 out."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32).reshape(np.shape(x))


def bf16_bits(x):
    """bfloat16 bit patterns (uint16) of float32 values, rounded to nearest even."""
    return (bf16_round(x).view(np.uint32) >> 16).astype(np.uint16)


def bf16_from_bits(bits):
    return (np.asarray(bits, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32)


# --------------------------------------------------------------------- E8M0


def e8m0_value(byte):
    """2^(byte - 127). Byte 0 is 2^-127; byte 255 is NaN and never legal here."""
    byte = np.asarray(byte, dtype=np.uint8)
    if np.any(byte == 255):
        raise ValueError("E8M0 scale byte 0xFF (NaN)")
    return np.ldexp(np.float32(1.0), byte.astype(np.int32) - 127).astype(np.float32)


# --------------------------------------------------------------------- E4M3


def _e4m3_table():
    out = np.zeros(256, dtype=np.float32)
    for code in range(256):
        sign = -1.0 if code & 0x80 else 1.0
        exponent, mantissa = (code >> 3) & 15, code & 7
        if exponent == 15 and mantissa == 7:
            value = np.nan
        elif exponent == 0:
            value = sign * mantissa * 2.0**-9
        else:
            value = sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)
        out[code] = value
    return out


E4M3 = _e4m3_table()
_E4M3_POSITIVE = E4M3[:127].astype(np.float64)  # codes 0x00..0x7E, ascending


def e4m3_encode(x):
    """Nearest E4M3 code, ties to the even mantissa, saturating at +-448."""
    x = np.asarray(x, dtype=np.float64)
    magnitude = np.minimum(np.abs(x), 448.0)
    hi = np.clip(np.searchsorted(_E4M3_POSITIVE, magnitude, side="left"), 0, 126)
    lo = np.maximum(hi - 1, 0)
    to_lo = magnitude - _E4M3_POSITIVE[lo]
    to_hi = _E4M3_POSITIVE[hi] - magnitude
    take_lo = (to_lo < to_hi) | ((to_lo == to_hi) & (lo % 2 == 0))
    code = np.where(take_lo, lo, hi).astype(np.uint8)
    return code | np.where(np.signbit(x), 0x80, 0).astype(np.uint8)


# --------------------------------------------------------------------- E2M1

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
_E2M1_POSITIVE = E2M1[:8].astype(np.float64)


def e2m1_encode(x):
    """Nearest E2M1 code 0..15, ties to the even code, saturating at +-6."""
    x = np.asarray(x, dtype=np.float64)
    magnitude = np.minimum(np.abs(x), 6.0)
    hi = np.clip(np.searchsorted(_E2M1_POSITIVE, magnitude, side="left"), 0, 7)
    lo = np.maximum(hi - 1, 0)
    to_lo = magnitude - _E2M1_POSITIVE[lo]
    to_hi = _E2M1_POSITIVE[hi] - magnitude
    take_lo = (to_lo < to_hi) | ((to_lo == to_hi) & (lo % 2 == 0))
    code = np.where(take_lo, lo, hi).astype(np.uint8)
    return code | np.where(np.signbit(x), 8, 0).astype(np.uint8)


# ------------------------------------------------- activation quantisation


def _ceil_log2(t):
    """ceil(log2 t) of positive float32 values, from the bits (never via log2)."""
    bits = np.ascontiguousarray(t, dtype=np.float32).view(np.uint32).reshape(np.shape(t))
    return (bits >> 23).astype(np.int32) - 127 + ((bits & 0x7FFFFF) != 0)


def fp8_scale_exponent(amax):
    amax = np.maximum(np.asarray(amax, dtype=np.float32), np.float32(1e-4))
    return _ceil_log2(amax * np.uint32(0x3B124925).view(np.float32))


def fp4_scale_exponent(amax):
    amax = np.maximum(np.asarray(amax, dtype=np.float32), np.float32(6 * 2.0**-126))
    return _ceil_log2(amax * np.uint32(0x3E2AAAAB).view(np.float32))


def fp8q(x, group):
    """Quantise-dequantise to E4M3 with one power-of-two scale per group."""
    shape = np.shape(x)
    assert shape[-1] % group == 0, f"width {shape[-1]} is not a multiple of {group}"
    g = np.asarray(x, dtype=np.float32).reshape(-1, group)
    scale = np.ldexp(np.float64(1), fp8_scale_exponent(np.abs(g).max(axis=1)))[:, None]
    return (E4M3[e4m3_encode(g / scale)] * scale).astype(np.float32).reshape(shape)


def fp4q(x):
    """Quantise-dequantise to E2M1 with one power-of-two scale per 32 values."""
    shape = np.shape(x)
    assert shape[-1] % 32 == 0, f"width {shape[-1]} is not a multiple of 32"
    g = np.asarray(x, dtype=np.float32).reshape(-1, 32)
    scale = np.ldexp(np.float64(1), fp4_scale_exponent(np.abs(g).max(axis=1)))[:, None]
    return (E2M1[e2m1_encode(g / scale)] * scale).astype(np.float32).reshape(shape)


def hadamard_matrix(n):
    """Orthonormal Walsh-Hadamard matrix, natural (Sylvester) order, float64."""
    h = np.ones((1, 1))
    while h.shape[0] < n:
        h = np.block([[h, h], [h, -h]])
    assert h.shape[0] == n, f"{n} is not a power of two"
    return h / np.sqrt(n)


# ----------------------------------------------------- weight quantisation


def fp8_weight(w):
    """[N, K] float -> (E4M3 codes [N, K] u8, E8M0 bytes [ceil(N/128), ceil(K/128)])."""
    n, k = w.shape
    rows, cols = -(-n // 128), -(-k // 128)
    scale = np.zeros((rows, cols), dtype=np.uint8)
    codes = np.zeros((n, k), dtype=np.uint8)
    for r in range(rows):
        for c in range(cols):
            tile = w[r * 128 : (r + 1) * 128, c * 128 : (c + 1) * 128]
            e = int(fp8_scale_exponent(np.abs(tile).max()))
            scale[r, c] = e + 127
            codes[r * 128 : (r + 1) * 128, c * 128 : (c + 1) * 128] = e4m3_encode(tile / 2.0**e)
    return codes, scale


def fp8_dequant(codes, scale):
    n, k = codes.shape
    full = np.repeat(np.repeat(e8m0_value(scale), 128, axis=0)[:n], 128, axis=1)[:, :k]
    return E4M3[codes] * full


def fp4_weight(w):
    """[N, K] float -> (packed nibbles [N, K/2] u8, E8M0 bytes [N, K/32])."""
    n, k = w.shape
    blocks = w.reshape(n, k // 32, 32)
    e = fp4_scale_exponent(np.abs(blocks).max(axis=2))
    codes = e2m1_encode(blocks / np.ldexp(1.0, e)[:, :, None]).reshape(n, k)
    packed = codes[:, 0::2] | (codes[:, 1::2] << 4)  # even k in the low nibble
    return packed.astype(np.uint8), (e + 127).astype(np.uint8)


def fp4_dequant(packed, scale):
    packed = packed.view(np.uint8)
    n, half = packed.shape
    codes = np.empty((n, half * 2), dtype=np.uint8)
    codes[:, 0::2] = packed & 15
    codes[:, 1::2] = packed >> 4
    return E2M1[codes] * np.repeat(e8m0_value(scale), 32, axis=1)


# -------------------------------------------------------------- safetensors

_ELEMENT = {"BF16": np.uint16, "F32": np.float32, "F8_E4M3": np.uint8, "F8_E8M0": np.uint8, "I8": np.int8, "I64": np.int64}


def save_safetensors(path, tensors):
    """tensors: {name: (dtype label, array)} in file order."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (label, array) in tensors.items():
        assert array.dtype == _ELEMENT[label], (name, label, array.dtype)
        header[name] = {"dtype": label, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for label, array in tensors.values():
            out.write(np.ascontiguousarray(array).tobytes())
    return offset


def load_checkpoint(folder):
    """All tensors of a checkpoint folder: {name: (dtype label, array)}."""
    with open(os.path.join(folder, "model.safetensors.index.json")) as f:
        weight_map = json.load(f)["weight_map"]
    out = {}
    for shard in sorted(set(weight_map.values())):
        with open(os.path.join(folder, shard), "rb") as f:
            raw = f.read()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size])
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            data = raw[8 + size + begin : 8 + size + end]
            out[name] = (entry["dtype"], np.frombuffer(data, dtype=_ELEMENT[entry["dtype"]]).reshape(entry["shape"]))
    missing = set(weight_map) - set(out)
    if missing:
        raise ValueError(f"index names tensors that no shard holds: {sorted(missing)[:3]}")
    return out


def dequantised(tensors):
    """{name: float32 or int64 array}: every stored format decoded, scales folded in."""
    out = {}
    for name, (label, array) in tensors.items():
        if name.endswith(".scale"):
            continue
        if label == "BF16":
            out[name] = bf16_from_bits(array)
        elif label in ("F32", "I64"):
            out[name] = array
        elif label == "F8_E4M3":
            out[name] = fp8_dequant(array, tensors[name.removesuffix("weight") + "scale"][1])
        elif label == "I8":
            out[name] = fp4_dequant(array, tensors[name.removesuffix("weight") + "scale"][1])
        else:
            raise ValueError(f"{name}: unknown dtype {label}")
    return out
