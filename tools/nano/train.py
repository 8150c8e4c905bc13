"""Trains nano on the processor.

    python train.py --model ../../models/nano --state build/state.pt --seconds 5000 [--resume]
The schedule follows the clock: `progress` = seconds spent / --seconds. State is saved about every five minutes.
"""
import argparse
import json
import os
import signal
import time

import torch
import torch.nn.functional as F

import batches
import data
import model as M
import weights as W
from config import config
from optim import Optimiser

# progress from which a row holds -> share of batches per kind
MIX = (
    (0.00, {"short": 46, "copy": 10, "tool": 18, "json": 8, "recall128": 6, "recall256": 11, "recall384": 11}),
    (0.15, {"short": 36, "copy": 13, "tool": 20, "json": 8, "recall128": 5, "recall256": 9, "recall384": 9, "recall768": 9}),
    (0.40, {"short": 24, "copy": 28, "tool": 15, "json": 5, "recall128": 6, "recall256": 8, "recall384": 7, "recall768": 4,
            "recall1152": 3}),
    (0.60, {"short": 28, "copy": 16, "tool": 17, "json": 5, "recall128": 4, "recall256": 8, "recall384": 7, "recall768": 7,
            "recall1152": 8}),
    (0.80, {"short": 40, "copy": 2, "tool": 32, "json": 6, "recall256": 2, "recall384": 3, "recall768": 3, "recall1152": 4,
            "recall2304": 3, "recall4608": 5}),
    (0.89, {"short": 66, "copy": 1, "tool": 14, "json": 6, "recall256": 1, "recall384": 2, "recall768": 2, "recall1152": 2,
            "recall2304": 2, "recall4608": 4}),
)
SELECT_FROM, MTP_FROM = 0.36, 0.45


def schedule(p, step):
    warm = min(1.0, (step + 1) / 100)
    down = 1.0 if p < 0.6 else max(0.02, 1 - (p - 0.6) / 0.4 * 0.98)
    return warm * down


class Picker:
    """Kinds in the given shares, evenly spread."""

    def __init__(self):
        self.credit = {}

    def next(self, shares):
        total = sum(shares.values())
        for k, s in shares.items():
            self.credit[k] = self.credit.get(k, 0.0) + s / total
        k = max(shares, key=lambda k: self.credit[k])
        self.credit[k] -= 1
        return k


def losses(net, ids, mask, mtp):
    """Cross-entropy on replies, plus a little on a tenth of the other tokens; also the exact share of replies."""
    X, stats = net.streams(ids)
    target = torch.cat((ids[:, 1:], ids[:, :1]), 1).reshape(-1)
    kind = torch.cat((mask[:, 1:], torch.zeros_like(mask[:, :1])), 1).reshape(-1)
    pad = torch.cat((ids[:, 1:], torch.full_like(ids[:, :1], batches.PAD)), 1).reshape(-1) == batches.PAD
    reply = torch.nonzero(kind > 0).flatten()
    other = torch.nonzero((kind == 0) & ~pad).flatten()
    other = other[torch.randperm(other.numel())[:max(64, other.numel() // 10)]]
    rows = torch.cat((reply, other))
    n = reply.numel()
    weight = torch.cat((torch.full((n,), 1.0 / max(n, 1)), torch.full((other.numel(),), 0.1 / other.numel())))
    lg = net.logits(net.hidden(X)[rows])
    ce = F.cross_entropy(lg, target[rows], reduction="none")
    loss = (ce * weight).sum()
    index = sum(stats["index"]) if stats["index"] else torch.zeros(())
    out = {"loss": ce[:n].mean().item(), "hit": (lg[:n].argmax(-1) == target[reply]).float().mean().item(),
           "index": index.item()}
    if mtp:
        t2 = torch.cat((ids[:, 2:], ids[:, :2]), 1).reshape(-1)
        k2 = torch.cat((mask[:, 2:], torch.zeros_like(mask[:, :2])), 1).reshape(-1)
        r2 = torch.nonzero(k2 > 0).flatten()
        lm = net.logits(net.mtp_hidden(X, ids, stats)[r2])
        m = F.cross_entropy(lm, t2[r2])
        out["mtp"] = (lm.argmax(-1) == t2[r2]).float().mean().item()
        loss = loss + 0.2 * m
    return loss + index, out, stats


@torch.no_grad()
def exact(net, rows, T):
    """How many of `rows` have every token of the last reply predicted (greedy decoding would write it exactly)."""
    good = 0
    B = batches.N // T
    for s in range(0, len(rows), B):
        part = rows[s:s + B]
        ids, mask = batches.tensors(part, T)
        X, _ = net.streams(ids)
        hid = net.hidden(X).view(B, T, -1)
        for i in range(len(part)):
            at = torch.nonzero(mask[i] == 2).flatten()
            if (net.logits(hid[i, at - 1]).argmax(-1) == ids[i, at]).all():
                good += 1
    return good


def skill_rows(tok, skill, mode, n, seed=1, length=None, T=None):
    out = []
    i = 0
    while len(out) < n:
        p = data.problem(data.EVAL_SEED + seed, i, skill, mode, length)
        row = batches.encode(tok, p)
        i += 1
        if len(row[0]) <= (T or 768):
            out.append(row)
    return out


def report(net, tok, n, long):
    """Exact share per skill and mode."""
    net.index_loss = False
    out = {}
    todo = [(s, m, None, 256 if m != "max" else 512) for s in ("add2", "add3", "sub", "sort", "reverse", "chat")
            for m in data.MODES]
    todo = [x for x in todo if x[1] != "max" or x[0] in ("add2", "add3")]
    todo += [("tool", "non", None, 768), ("tool", "high", None, 768), ("json", "non", None, 256)]
    todo += [("recall", "non", 250, 384), ("recall", "non", 900, 1152)] + ([("recall", "non", 4200, 4608)] if long else [])
    for skill, mode, length, T in todo:
        k = min(n, max(8, 3 * (batches.N // T))) if T < 4608 else 6
        rows = skill_rows(tok, skill, mode, k, length=length, T=T)
        out[f"{skill}{length or ''}.{mode}"] = round(exact(net, rows, T) / len(rows), 3)
    net.index_loss = True
    return out


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--model", required=True)
    a.add_argument("--state", required=True)
    a.add_argument("--seconds", type=float, default=5000)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--lr-matrix", type=float, default=4e-3)
    a.add_argument("--lr-adam", type=float, default=3e-3)
    a.add_argument("--resume", action="store_true")
    a.add_argument("--no-compile", action="store_true")
    a = a.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(a.seed)
    if not a.no_compile:
        M.enable_compile()
    tok = batches.load_tokenizer(a.model)
    c = config(tok.get_vocab_size())
    master = W.initial(c, a.seed)
    opt = Optimiser(master, c)
    step, spent, tokens = 0, 0.0, 0
    if a.resume:
        s = torch.load(a.state)
        master, opt.m, opt.v, opt.step_count = s["master"], s["m"], s["v"], s["opt_steps"]
        step, spent, tokens = s["step"], s["spent"], s["tokens"]
    stream, picker = batches.Stream(tok, a.seed * 1000 + step), Picker()
    net = M.Nano(c, {}, M.Numerics.training(act=True))
    net.index_loss = True
    log = open(os.path.join(os.path.dirname(a.state) or ".", "train.log"), "a", buffering=1)

    def save():
        torch.save({"config": c, "master": master, "m": opt.m, "v": opt.v, "opt_steps": opt.step_count, "step": step,
                    "spent": spent, "tokens": tokens}, a.state + ".tmp")
        os.replace(a.state + ".tmp", a.state)

    print(f"{sum(t.numel() for t in master.values())} parameters, {torch.get_num_threads()} threads", flush=True)
    begin = last_save = last_log = time.time()
    base = spent
    window = {}
    first_save, stop = True, []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))     # finish the step, save, end
    while True:
        if stop:
            save()
            return
        spent = base + time.time() - begin
        p = spent / a.seconds
        if p >= 1:
            break
        shares = [m for at, m in MIX if p >= at][-1]
        net.select = p >= SELECT_FROM
        net.w = W.stored(master, c)
        leaves = {n: net.w[n].requires_grad_(True) for n in master if not n.endswith("gate.bias")}
        loads = {}
        for micro in range(2):
            kind = picker.next(shares)
            ids, mask = stream.next(kind)
            loss, out, stats = losses(net, ids, mask, p >= MTP_FROM and micro == 0)
            (loss * (1.0 if kind.startswith(("recall", "copy")) else 0.5)).backward()
            for n, cnt in stats["load"]:
                loads[n] = loads.get(n, 0) + cnt
            w = window.setdefault(kind, {})
            for k, v in out.items():
                w.setdefault(k, []).append(v)
            tokens += batches.N
        grads = {n: t.grad.float() for n, t in leaves.items() if t.grad is not None}
        norm = torch.sqrt(sum(g.square().sum() for g in grads.values()))
        if torch.isfinite(norm):
            clip = min(1.0, 1.0 / (norm.item() + 1e-6))
            for g in grads.values():
                g.mul_(clip)
            f = schedule(p, step)
            opt.step(master, grads, a.lr_matrix * f, a.lr_adam * f, 0.05)
            for n, cnt in loads.items():
                master[n] += 0.003 * f * torch.sign(cnt.float().mean() - cnt.float())
        else:
            print("step", step, "not finite, skipped", flush=True)
        step += 1
        now = time.time()
        if now - last_log > 30:
            line = {"step": step, "s": round(spent), "tokens": tokens, "norm": round(norm.item(), 3), **{
                k: {x: round(sum(v) / len(v), 3) for x, v in w.items()} for k, w in sorted(window.items())}}
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            window, last_log = {}, now
        if now - last_save > (120 if first_save else 300):
            first_save = False
            save()
            net.w = W.stored(master, c)
            line = {"eval": report(net, tok, 54, p > 0.55), "step": step, "s": round(spent)}
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            last_save = last_log = time.time()
    save()
    net.w = W.stored(master, c)
    line = {"final": report(net, tok, 54, True), "step": step, "tokens": tokens}
    print(json.dumps(line), flush=True)
    log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
