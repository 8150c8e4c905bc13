"""Number formats of a DeepSeek-V4 checkpoint: value-level quantisers and byte-level encoders.

The rules are those of the checkpoint specification: power-of-two scales rounded up, round to nearest even,
saturation. Every function works on float32 tensors and is exact (bit tricks instead of logarithms).
"""
import torch

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def ceil_pow2(t):
    """2^ceil(log2 t) for positive normal float32 t, from the bits. Returns (scale, biased exponent)."""
    bits = t.float().contiguous().view(torch.int32)
    e = (bits >> 23) & 0xFF
    e = e + ((bits & 0x7FFFFF) != 0).to(torch.int32)
    return (e << 23).view(torch.float32), e


def round_e4m3(y):
    """Nearest E4M3 value (ties to even) of y already within [-448, 448]."""
    return y.to(torch.float8_e4m3fn).float()


def round_e2m1(y):
    """Nearest E2M1 value (ties to even) of y already within [-6, 6]. Steps are 0.5 below 2, 1 below 4, else 2."""
    a = y.abs()
    step = torch.where(a < 2.0, 0.5, torch.where(a < 4.0, 1.0, 2.0))
    return torch.round(y / step) * step


def fp8q(x, group):
    """fp8q(x; g): E4M3 with one power-of-two scale per `group` values of the last dimension."""
    shape = x.shape
    v = x.float().reshape(-1, group)
    a = v.abs().amax(-1, keepdim=True).clamp_min(1e-4)
    s, _ = ceil_pow2(a * torch.tensor(1.0 / 448.0, dtype=torch.float32))
    return (round_e4m3((v / s).clamp(-448, 448)) * s).reshape(shape)


def fp4q(x, group=32):
    """fp4q(x): E2M1 with one power-of-two scale per 32 values of the last dimension."""
    shape = x.shape
    v = x.float().reshape(-1, group)
    a = v.abs().amax(-1, keepdim=True).clamp_min(6 * 2.0 ** -126)
    s, _ = ceil_pow2(a * torch.tensor(1.0 / 6.0, dtype=torch.float32))
    return (round_e2m1((v / s).clamp(-6, 6)) * s).reshape(shape)


def _tiles(w):
    n, k = w.shape
    pn, pk = -n % 128, -k % 128
    v = torch.nn.functional.pad(w.float(), (0, pk, 0, pn))
    v = v.reshape((n + pn) // 128, 128, (k + pk) // 128, 128)
    a = v.abs().amax((1, 3), keepdim=True).clamp_min(1e-4)
    s, e = ceil_pow2(a * torch.tensor(1.0 / 448.0, dtype=torch.float32))
    return v, s, e


def fp8_weight(w):
    """Value of an FP8 weight [N, K] with 128x128 power-of-two scales."""
    v, s, _ = _tiles(w)
    q = round_e4m3((v / s).clamp(-448, 448)) * s
    return q.reshape(q.shape[0] * 128, -1)[: w.shape[0], : w.shape[1]]


def fp8_weight_bytes(w):
    """(E4M3 bytes [N, K], E8M0 bytes [ceil(N/128), ceil(K/128)]) of an FP8 weight."""
    v, s, e = _tiles(w)
    q = (v / s).clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
    q = q.reshape(q.shape[0] * 128, -1)[: w.shape[0], : w.shape[1]].contiguous()
    return q, e[:, 0, :, 0].to(torch.uint8).contiguous()


def fp4_weight_bytes(w):
    """(packed nibbles [N, K/2], E8M0 bytes [N, K/32]) of an FP4 weight [N, K]; even K index in the low nibble."""
    n, k = w.shape
    v = w.float().reshape(n, k // 32, 32)
    a = v.abs().amax(-1, keepdim=True).clamp_min(6 * 2.0 ** -126)
    s, e = ceil_pow2(a * torch.tensor(1.0 / 6.0, dtype=torch.float32))
    q = round_e2m1((v / s).clamp(-6, 6)).reshape(n, k)
    code = (q.abs()[..., None] == E2M1).to(torch.uint8).argmax(-1).to(torch.uint8)
    code = code | ((q < 0).to(torch.uint8) << 3)
    return (code[:, 0::2] | (code[:, 1::2] << 4)).contiguous(), e[..., 0].to(torch.uint8).contiguous()


def e8m0_value(b):
    """Float32 value of E8M0 bytes."""
    i = b.to(torch.int32)
    return torch.where(i == 0, torch.tensor(0x00400000, dtype=torch.int32), i << 23).view(torch.float32)


def fp8_value(q, scale):
    """Float32 weight of E4M3 bytes and their 128x128 E8M0 scales."""
    s = e8m0_value(scale).repeat_interleave(128, 0)[: q.shape[0]].repeat_interleave(128, 1)[:, : q.shape[1]]
    return q.view(torch.float8_e4m3fn).float() * s


def fp4_value(packed, scale):
    """Float32 weight of packed E2M1 nibbles and their per-32 E8M0 scales."""
    p = packed.view(torch.uint8)
    code = torch.stack((p & 15, p >> 4), -1).flatten(-2).long()
    v = E2M1[code & 7] * (1 - 2 * (code >> 3)).float()
    return v * e8m0_value(scale).repeat_interleave(32, -1)


def hadamard(n):
    """Sylvester Hadamard matrix [n, n] times n^-0.5."""
    i = torch.arange(n)
    parity = torch.zeros(n, n, dtype=torch.long)
    v = i[:, None] & i[None, :]
    while v.any():
        parity ^= v & 1
        v = v >> 1
    return (1.0 - 2.0 * parity.float()) * n ** -0.5
