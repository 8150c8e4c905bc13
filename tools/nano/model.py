"""The nano model: DeepSeek-V4's forward pass written from the model specification, in PyTorch.

One module serves three uses, chosen by `Numerics`:
  train      bfloat16 tensors and products, fast; the value-changing roundings are straight-through
  reference  bfloat16 at the official points, float32 where the official code keeps float32
  exact      float32 everywhere, no activation rounding; FP8 KV and FP4 index keys stay (the model was trained so)
Weights are a plain dict of tensors under the official tensor names; experts are stacked per layer:
`layers.0.ffn.experts.w13` [E, 2I, D] and `layers.0.ffn.experts.w2` [E, D, I]; w1 rows come first in w13.
Shapes in comments: B sequences, T tokens (a multiple of 128 in training), N = B*T, H heads, d head_dim, M = 4 streams.
"""
import ctypes
import math
import os
import subprocess
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import roundings as R

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Numerics:
    train: bool = False
    bf16: bool = True      # activations are bfloat16 tensors
    act: bool = True       # FP8 activations into FP8 and FP4 linears
    cache: bool = True     # FP8 KV, FP4 index queries and keys

    @staticmethod
    def training(act=True):
        return Numerics(True, True, act, True)

    @staticmethod
    def reference():
        return Numerics(False, True, True, True)

    @staticmethod
    def exact():
        return Numerics(False, False, False, True)


def kernels():
    """The compiled helpers of kernels.c, built beside the source when missing or older than it."""
    src, lib = os.path.join(HERE, "kernels.c"), os.path.join(HERE, "build", "kernels.so")
    if not os.path.exists(lib) or os.path.getmtime(lib) < os.path.getmtime(src):
        os.makedirs(os.path.dirname(lib), exist_ok=True)
        subprocess.run(["gcc", "-O3", "-march=native", "-fopenmp", "-ffp-contract=off", "-fno-math-errno", "-shared",
                        "-fPIC", "-o", lib, src, "-lm"], check=True)
    k = ctypes.CDLL(lib)
    p, n = ctypes.c_void_p, ctypes.c_long
    k.sinkhorn_forward.argtypes = [p, p, n, ctypes.c_int]
    k.sinkhorn_backward.argtypes = [p, p, p, n, ctypes.c_int]
    k.fp8q_rows.argtypes = [p, n, n, n, n]
    k.fp4q_rows.argtypes = [p, n]
    return k


K = kernels()
_compile_on = False


def compiled(fn):
    """torch.compile for training only; the plain function otherwise."""
    fast = torch.compile(fn, dynamic=False, fullgraph=True)

    def call(*a):
        return fast(*a) if _compile_on else fn(*a)
    return call


def enable_compile():
    global _compile_on
    _compile_on = True


class Sinkhorn(torch.autograd.Function):
    """[n, 16] float32 logits -> row softmax, then alternating column and row normalisations (spec 3.3)."""
    @staticmethod
    def forward(ctx, c, iters):
        c = c.contiguous()
        out = torch.empty_like(c)
        K.sinkhorn_forward(c.data_ptr(), out.data_ptr(), c.shape[0], iters)
        ctx.save_for_backward(c)
        ctx.iters = iters
        return out

    @staticmethod
    def backward(ctx, g):
        (c,) = ctx.saved_tensors
        g = g.contiguous()
        out = torch.empty_like(c)
        K.sinkhorn_backward(c.data_ptr(), g.data_ptr(), out.data_ptr(), c.shape[0], ctx.iters)
        return out, None


class Fp8Round(torch.autograd.Function):
    """Straight-through fp8q of the first `width` values of each row."""
    @staticmethod
    def forward(ctx, x, width, group):
        if x.dtype == torch.bfloat16:
            y = x.contiguous().clone()
            d = y.shape[-1]
            K.fp8q_rows(y.data_ptr(), y.numel() // d, d, width, group)
            return y
        return torch.cat((R.fp8q(x[..., :width], group), x[..., width:]), -1)

    @staticmethod
    def backward(ctx, g):
        return g, None, None


class Fp4Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        if x.dtype == torch.bfloat16:
            y = x.contiguous().clone()
            K.fp4q_rows(y.data_ptr(), y.numel() // 32)
            return y
        return R.fp4q(x)

    @staticmethod
    def backward(ctx, g):
        return g


class Grouped(torch.autograd.Function):
    """Rows sorted by expert times that expert's matrix: x [n, K], w [E, N, K], counts per expert -> [n, N]."""
    @staticmethod
    def forward(ctx, x, w, counts):
        out = x.new_empty(x.shape[0], w.shape[1])
        s = 0
        for e, c in enumerate(counts):
            if c:
                torch.mm(x[s:s + c], w[e].t(), out=out[s:s + c])
            s += c
        ctx.save_for_backward(x, w)
        ctx.counts = counts
        return out

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        gx, gw = torch.empty_like(x), torch.zeros_like(w)
        s = 0
        for e, c in enumerate(ctx.counts):
            if c:
                torch.mm(g[s:s + c], w[e], out=gx[s:s + c])
                torch.mm(g[s:s + c].t(), x[s:s + c], out=gw[e])
            s += c
        return gx, gw, None


def rms(x, w, eps=1e-6):
    v = x.float()
    v = v * torch.rsqrt(v.square().mean(-1, keepdim=True) + eps)
    return (v * w.float()).to(x.dtype) if w is not None else v.to(x.dtype)


def rotate(x, cos, sin):
    """Adjacent-pair rotation of the last 64 values; cos, sin [..., 32] float32 broadcast over x."""
    a, b = x[..., -64:].float().unflatten(-1, (32, 2)).unbind(-1)
    r = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    return torch.cat((x[..., :-64], r.to(x.dtype)), -1)


def frequencies(base, yarn):
    f = (1.0 / (base ** (torch.arange(0, 64, 2, dtype=torch.float64) / 64))).float()
    if yarn:
        corr = [64 * math.log(65536 / (2 * math.pi * n)) / (2 * math.log(base)) for n in (32, 1)]
        low, high = max(math.floor(corr[0]), 0), min(math.ceil(corr[1]), 63)
        ramp = ((torch.arange(32).float() - low) / (high - low)).clamp(0, 1)
        f = f / 16 * ramp + f * (1 - ramp)
    return f


@compiled
def hc_coefficients(X, fn, base, scale):
    """Streams [N, 4, D] -> pre [N, 4], post [N, 4], comb logits [N, 16], all float32."""
    v = X.float().flatten(1)
    m = (v @ fn.t()) * torch.rsqrt(v.square().mean(-1, keepdim=True) + 1e-6)
    pre = torch.sigmoid(m[:, :4] * scale[0] + base[:4]) + 1e-6
    post = 2 * torch.sigmoid(m[:, 4:8] * scale[1] + base[4:8])
    return pre, post, m[:, 8:] * scale[2] + base[8:]


@compiled
def hc_collapse(X, pre, w):
    """u = sum_j pre_j X_j rounded, then rms with weight w -> [N, D]."""
    u = (X[:, 0].float() * pre[:, 0:1] + X[:, 1].float() * pre[:, 1:2] + X[:, 2].float() * pre[:, 2:3]
         + X[:, 3].float() * pre[:, 3:4]).to(X.dtype)
    return rms(u, w)


@compiled
def hc_post(y, X, post, C):
    """X'_k = post_k y + sum_j C[j][k] X_j; C [N, 16] row-major."""
    yf, x = y.float(), [X[:, j].float() for j in range(4)]
    out = []
    for k in range(4):
        a = post[:, k:k + 1] * yf
        for j in range(4):
            a = a + C[:, 4 * j + k:4 * j + k + 1] * x[j]
        out.append(a.to(X.dtype))
    return torch.stack(out, 1)


@compiled
def head_norm_rope(q, cos, sin):
    """q [N, H, d]: unweighted rms per head, then rope."""
    return rotate(rms(q, None), cos[:, None], sin[:, None])


def head_norm_rope_parity(q, cos, sin):
    """The official bfloat16 arithmetic of the per-head norm: each step rounds."""
    m = (q * q).mean(-1, keepdim=True)
    return rotate(q * torch.rsqrt(m + 1e-6), cos[:, None], sin[:, None])


@compiled
def norm_rope(x, w, cos, sin):
    return rotate(rms(x, w), cos, sin)


@compiled
def norm(x, w):
    return rms(x, w)


@compiled
def rope_only(x, cos, sin):
    return rotate(x, cos, sin)


@compiled
def unrope(x, cos, sin):
    return rotate(x, cos[:, None], -sin[:, None])


@compiled
def pool_overlap(kg, ape, first):
    """kg [n, 4, 4d] = (values low|high, logits low|high) of n windows; first [n] marks a sequence's first window."""
    d = kg.shape[-1] // 4
    v, g = kg[..., :2 * d].float(), kg[..., 2 * d:].float() + ape
    pv, pg = torch.roll(v[..., :d], 1, 0), torch.roll(g[..., :d], 1, 0)
    pg = pg.masked_fill(first[:, None, None], float("-inf"))
    v, g = torch.cat((pv, v[..., d:]), 1), torch.cat((pg, g[..., d:]), 1)
    v = torch.where(first[:, None, None] & (torch.arange(8, device=v.device) < 4)[None, :, None], 0.0, v)
    return (torch.softmax(g, 1) * v).sum(1).to(kg.dtype)


@compiled
def pool_plain(kg, ape):
    d = kg.shape[-1] // 2
    return (torch.softmax(kg[..., d:].float() + ape, 1) * kg[..., :d].float()).sum(1).to(kg.dtype)


@compiled
def swiglu(h, w, limit):
    i = h.shape[-1] // 2
    g, u = h[:, :i].float().clamp(max=limit), h[:, i:].float().clamp(-limit, limit)
    a = F.silu(g) * u
    if w is not None:
        a = a * w[:, None]
    return a.to(h.dtype)


@compiled
def swiglu_shared(h, limit):
    i = h.shape[-1] // 2
    g, u = h[:, :i].float().clamp(max=limit), h[:, i:].float().clamp(-limit, limit)
    return (F.silu(g) * u).to(h.dtype)


class Nano:
    """Forward pass over a weight dict. State that training needs (expert loads, index losses) is collected per call."""

    def __init__(self, cfg, weights, num):
        self.c, self.w, self.num = cfg, weights, num
        self.dt = torch.bfloat16 if num.bf16 else torch.float32
        self.freq = {False: frequencies(cfg["rope_theta"], False), True: frequencies(cfg["compress_rope_theta"], True)}
        self.had = R.hadamard(cfg["index_head_dim"]).to(self.dt)
        self.hadf = R.hadamard(cfg["index_head_dim"])
        self.select = True         # top-k selection; False = dense warm-up over every visible entry
        self.index_loss = False    # collect the indexer's KL
        self._tables = {}

    # -- helpers ---------------------------------------------------------------------------------------------------
    def lin(self, x, name):
        """FP8 or FP4 linear: activation rounded to FP8 per 128, product in the tensor dtype with float32 sums."""
        if self.num.act:
            x = Fp8Round.apply(x, x.shape[-1], 128)
        return F.linear(x, self.w[name + ".weight"])

    def lin_q(self, xq, name):
        return F.linear(xq, self.w[name + ".weight"])

    def aq(self, x):
        return Fp8Round.apply(x, x.shape[-1], 128) if self.num.act else x

    def full(self, x, w):
        """float32 product of bfloat16 tensors; training lets the product round to bfloat16."""
        return F.linear(x, w) if self.num.train else F.linear(x.float(), w.float())

    def tables(self, B, T):
        key = (B, T)
        if key not in self._tables:
            t = {}
            pos = torch.arange(T).float()
            for yarn in (False, True):
                ang = pos[:, None] * self.freq[yarn]
                t["cos", yarn, 1], t["sin", yarn, 1] = ang.cos().repeat(B, 1), ang.sin().repeat(B, 1)
            for r in (4, 128):
                ang = (torch.arange(T // r).float() * r)[:, None] * self.freq[True]
                t["cos", True, r], t["sin", True, r] = ang.cos().repeat(B, 1), ang.sin().repeat(B, 1)
                t["vis", r] = (torch.arange(T // r)[None] + 1) * r <= torch.arange(T)[:, None] + 1   # [T, T/r]
            t["first"] = (torch.arange(T // 4) == 0).repeat(B)
            q, s = torch.arange(128)[:, None], torch.arange(256)[None]
            ok = (s > q) & (s <= q + 128)
            t["win"] = torch.stack([ok & (s >= 128)] + [ok] * (max(T // 128, 1) - 1))    # [nb, 128, 256]
            if len(self._tables) > 40:
                self._tables.clear()
            self._tables[key] = t
        return self._tables[key]

    # -- attention -------------------------------------------------------------------------------------------------
    def attention(self, x, pre, r, B, T, t, stats):
        c, w, num = self.c, self.w, self.num
        H, d, N, yarn = c["num_attention_heads"], c["head_dim"], B * T, r > 0
        cos, sin = t["cos", yarn, 1], t["sin", yarn, 1]
        xq = self.aq(x)
        qr = norm(self.lin_q(xq, pre + "wq_a"), w[pre + "q_norm.weight"])
        qrq = self.aq(qr)
        q = self.lin_q(qrq, pre + "wq_b").view(N, H, d)
        q = head_norm_rope_parity(q, cos, sin) if (num.bf16 and not num.train) else head_norm_rope(q, cos, sin)
        kv = norm_rope(self.lin_q(xq, pre + "wkv"), w[pre + "kv_norm.weight"], cos, sin)
        if num.cache:
            kv = Fp8Round.apply(kv, d - 64, 64)
        entries = allowed = None
        nc = T // r if r else 0
        if nc:
            entries = self.compress(x, pre + "compressor.", r, N, T, t)
            if num.cache:
                entries = Fp8Round.apply(entries, d - 64, 64)
            entries = entries.view(B, nc, d)
            allowed = t["vis", r]                                    # [T, nc]
        topk = c["index_topk"]
        index = None
        if r == 4 and nc > topk and (self.select or self.index_loss):
            index = self.index_inputs(x, qrq, pre + "indexer.", N, T, t, B)
            if self.select:
                with torch.no_grad():
                    s = self.index_scores(*[i.detach() for i in index])
                    s = s.masked_fill(~t["vis", 4], float("-inf"))
                    # ties: higher score first, then lower index
                    keep = torch.zeros(B, T, nc, dtype=torch.bool)
                    pick = (s.topk(topk, -1).indices if num.train
                            else torch.sort(s, dim=-1, descending=True, stable=True).indices[..., :topk])
                    keep.scatter_(-1, pick, True)
                    allowed = keep & t["vis", 4]                     # [B, T, nc]
        o, pc = self.attend(q.view(B, T, H, d), kv.view(B, T, d), entries, allowed, w[pre + "attn_sink"], t["win"])
        if self.index_loss and index is not None:
            stats["index"].append(self.index_kl(index, pc, allowed, B, T, nc))
        o = unrope(o.reshape(N, H, d), cos, sin)
        G, Ro = c["o_groups"], c["o_lora_rank"]
        o = o.view(N, G, H * d // G)
        wo_a = w[pre + "wo_a.weight"].view(G, Ro, -1)
        a = torch.cat([F.linear(o[:, g], wo_a[g]) for g in range(G)], -1)
        return self.lin(a, pre + "wo_b")

    def compress(self, x, pre, r, N, T, t):
        """Pooled, normed and rotated entries [N/r, d] of one compressor (spec section 5)."""
        w = self.w
        kg = self.full(x, torch.cat((w[pre + "wkv.weight"], w[pre + "wgate.weight"])))
        kg = kg.view(N // r, r, -1)
        e = pool_overlap(kg, w[pre + "ape"], t["first"]) if r == 4 else pool_plain(kg, w[pre + "ape"])
        return norm_rope(e.to(self.dt), w[pre + "norm.weight"], t["cos", True, r], t["sin", True, r])

    def index_inputs(self, x, qrq, pre, N, T, t, B):
        """Rotated, Hadamard-turned, FP4 index queries [B, T, Hi, di], keys [B, nc, di] and head weights [B, T, Hi].
        The trunk is detached: only the indexer's own loss trains the indexer."""
        c, w = self.c, self.w
        Hi, di = c["index_n_heads"], c["index_head_dim"]
        x, qrq = x.detach(), qrq.detach()
        cos, sin = t["cos", True, 1], t["sin", True, 1]
        q = self.lin_q(qrq, pre + "wq_b").view(N, Hi, di)
        q = rotate(q, cos[:, None], sin[:, None])
        k = self.compress(x, pre + "compressor.", 4, N, T, t)
        if self.num.train or not self.num.bf16:
            q, k = q @ self.had, k @ self.had
        else:
            q, k = (q.float() @ self.hadf).bfloat16(), (k.float() @ self.hadf).bfloat16()
        if self.num.cache:
            q, k = Fp4Round.apply(q), Fp4Round.apply(k)
        hw = F.linear(x, w[pre + "weights_proj.weight"]) * (di ** -0.5 * Hi ** -0.5)
        return q.view(B, T, Hi, di), k.view(B, T // 4, di), hw.view(B, T, Hi)

    def index_scores(self, q, k, hw):
        B, T, Hi, di = q.shape
        if not self.num.train:
            q, k, hw = q.float(), k.float(), hw.float()
        s = torch.relu(torch.bmm(q.reshape(B, T * Hi, di), k.transpose(1, 2))).view(B * T, Hi, -1)
        return torch.bmm(hw.reshape(B * T, 1, Hi), s).view(B, T, -1).float()

    def index_kl(self, index, pc, allowed, B, T, nc):
        """KL(head-summed attention mass || softmax of index scores) over the entries attended, on a subset of queries."""
        q, k, hw = index
        rows = torch.cat((torch.randperm(T - 96)[:T // 8] , torch.arange(T - 96, T)))
        target = pc[:, rows].detach().float().sum(2)                 # [B, n, nc]
        mass = target.sum(-1, keepdim=True)
        target = target / mass.clamp_min(1e-6)
        ok = (allowed[rows] if allowed.dim() == 2 else allowed[:, rows])
        s = self.index_scores(q[:, rows], k, hw[:, rows]).masked_fill(~ok, -1e9)
        lp = torch.log_softmax(s, -1)
        kl = (target * (torch.log(target.clamp_min(1e-9)) - lp)).sum(-1)
        weight = ((rows >= 131)[None] & (mass[..., 0] > 1e-4)).float()
        return (kl * weight).sum() / weight.sum().clamp_min(1.0)

    def attend(self, q, kv, entries, allowed, sink, win):
        """softmax over window and entries with a sink; returns o [B, T, H, d] and entry mass [B, T, H, nc].

        Blocks of 128 queries see the 256 keys of their own and the previous block. Slot 0 of those is never inside a
        window, so it carries the sink: a zero key (and value) whose bias is the sink logit."""
        B, T, H, d = q.shape
        nb = T // 128
        blocks = kv.view(B, nb, 128, d)
        prev = F.pad(blocks, (0, 0, 0, 0, 1, 0))[:, :nb]
        keys = torch.cat((prev[:, :, 1:], blocks), 2)                # [B, nb, 255, d]
        keys = F.pad(keys, (0, 0, 1, 0)).view(B * nb, 256, d)
        f = torch.float32 if not self.num.train else self.dt
        qf, kf = q.to(f), keys.to(f)
        scale = d ** -0.5
        bias = torch.zeros(win.shape, dtype=f).masked_fill(~win, float("-inf"))
        bias = bias[:, :, None].expand(nb, 128, H, 256)
        bias = torch.cat((sink.to(f).view(1, 1, H, 1).expand(nb, 128, H, 1), bias[..., 1:]), -1)
        zw = torch.bmm(qf.reshape(B * nb, 128 * H, d), kf.transpose(1, 2)).view(B, nb, 128, H, 256)
        zw = (zw * scale + bias).view(B, T, H, 256)
        if entries is None:
            p = torch.softmax(zw, -1)
            pw, pc = p, None
        else:
            ef = entries.to(f)
            zc = torch.bmm(qf.reshape(B, T * H, d), ef.transpose(1, 2)).view(B, T, H, -1)
            cb = torch.zeros(allowed.shape, dtype=f).masked_fill(~allowed, float("-inf"))
            zc = zc * scale + (cb[None, :, None] if cb.dim() == 2 else cb[:, :, None])
            p = torch.softmax(torch.cat((zw, zc), -1), -1)
            pw, pc = p[..., :256], p[..., 256:]
        if not self.num.train and self.num.bf16:
            # the unnormalised weights round to bfloat16, the denominator does not
            z = zw if entries is None else torch.cat((zw, zc), -1)
            m = z.amax(-1, keepdim=True)
            e = torch.exp(z - m)
            den = e.sum(-1, keepdim=True)
            e = e.bfloat16().float()
            o = torch.bmm(e[..., :256].reshape(B * nb, 128 * H, 256), kf).view(B, T, H, d)
            if entries is not None:
                o = o + torch.bmm(e[..., 256:].reshape(B, T * H, -1), ef).view(B, T, H, d)
            return (o / den).to(self.dt), pc
        o = torch.bmm(pw.reshape(B * nb, 128 * H, 256), kf).view(B, T, H, d)
        if entries is not None:
            o = o + torch.bmm(pc.reshape(B, T * H, -1), ef).view(B, T, H, d)
        return o.to(self.dt), pc

    # -- mixture of experts ----------------------------------------------------------------------------------------
    def moe(self, x, pre, ids, stats):
        c, w = self.c, self.w
        E, k, limit, N = c["n_routed_experts"], c["num_experts_per_tok"], c["swiglu_limit"], x.shape[0]
        s = torch.sqrt(F.softplus(F.linear(x.float(), w[pre + "gate.weight"].float())))
        table = w.get(pre + "gate.tid2eid")
        if table is not None:
            pick = table[ids]
        else:
            pick = torch.topk(s.detach() + w[pre + "gate.bias"], k, -1).indices
        g = s.gather(-1, pick)
        g = g / (g.sum(-1, keepdim=True) + 1e-20) * c["routed_scaling_factor"]
        flat = pick.reshape(-1)
        order = torch.argsort(flat, stable=True)
        counts = torch.bincount(flat, minlength=E)
        if table is None:
            stats["load"].append((pre + "gate.bias", counts))
        counts = counts.tolist()
        xq = self.aq(x)
        h = Grouped.apply(xq[order // k], w[pre + "experts.w13"], counts)
        a = self.aq(swiglu(h, g.reshape(-1)[order], limit))
        y = Grouped.apply(a, w[pre + "experts.w2"], counts)
        y = y[torch.argsort(order)].view(N, k, -1)
        if not self.num.train:                                        # ascending expert id
            y = y.gather(1, torch.argsort(pick, -1)[..., None].expand_as(y))
        hs = F.linear(xq, w[pre + "shared_experts.w13.weight"])
        ys = self.lin(swiglu_shared(hs, limit), pre + "shared_experts.w2")
        acc = y[:, 0].float()
        for i in range(1, k):
            acc = acc + y[:, i].float()
        return (acc + ys.float()).to(self.dt)

    # -- blocks ----------------------------------------------------------------------------------------------------
    def hc_pre(self, X, pre, norm_w):
        w = self.w
        p, post, comb = hc_coefficients(X, w[pre + "_fn"], w[pre + "_base"], w[pre + "_scale"])
        return hc_collapse(X, p, norm_w), post, Sinkhorn.apply(comb, self.c["hc_sinkhorn_iters"])

    def block(self, X, pre, r, ids, B, T, t, stats):
        w = self.w
        x, post, C = self.hc_pre(X, pre + "hc_attn", w[pre + "attn_norm.weight"])
        X = hc_post(self.attention(x, pre + "attn.", r, B, T, t, stats), X, post, C)
        x, post, C = self.hc_pre(X, pre + "hc_ffn", w[pre + "ffn_norm.weight"])
        return hc_post(self.moe(x, pre + "ffn.", ids, stats), X, post, C)

    def hc_head(self, X, pre, norm_w):
        w = self.w
        v = X.float().flatten(1)
        m = (v @ w[pre + "hc_head_fn"].t()) * torch.rsqrt(v.square().mean(-1, keepdim=True) + 1e-6)
        p = torch.sigmoid(m * w[pre + "hc_head_scale"] + w[pre + "hc_head_base"]) + 1e-6
        return hc_collapse(X, p, norm_w)

    def logits(self, x):
        h = self.w["head.weight"]
        return F.linear(x, h).float() if self.num.train else F.linear(x.float(), h.float())

    def streams(self, ids):
        """ids [B, T], T a multiple of 128 -> stream state [N, 4, D] after the last layer, and the collected stats."""
        B, T = ids.shape
        t = self.tables(B, T)
        stats = {"index": [], "load": []}
        flat = ids.reshape(-1)
        X = F.embedding(flat, self.w["embed.weight"]).to(self.dt)[:, None].expand(-1, 4, -1)
        X = X.contiguous()
        for i in range(self.c["num_hidden_layers"]):
            X = self.block(X, f"layers.{i}.", self.c["compress_ratios"][i], flat, B, T, t, stats)
        return X, stats

    def hidden(self, X):
        return self.hc_head(X, "", self.w["norm.weight"])

    def mtp_hidden(self, X, ids, stats):
        """The MTP block: position p, fed token p+1, predicts token p+2. Returns [N, D] before the head."""
        B, T = ids.shape
        w, p = self.w, "mtp.0."
        nxt = torch.cat((ids[:, 1:], ids[:, -1:]), 1).reshape(-1)
        e = self.lin(norm(F.embedding(nxt, w["embed.weight"]).to(self.dt), w[p + "enorm.weight"]), p + "e_proj")
        N, M, D = X.shape
        h = self.lin(rms(X, w[p + "hnorm.weight"]).view(N * M, D), p + "h_proj").view(N, M, D)
        Z = (e[:, None] + h)
        Z = self.block(Z, p, 0, nxt, B, T, self.tables(B, T), stats)
        return self.hc_head(Z, p, w[p + "norm.weight"])
