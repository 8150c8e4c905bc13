"""Problems to token batches. Every batch holds exactly N = 4608 tokens: N / T sequences of one length T."""
import os
import random

import torch
from tokenizers import Tokenizer

import chatfmt
import data

N = 4608
BUCKETS = (128, 256, 384, 512, 768, 1152, 2304, 4608)
PAD = 2


def load_tokenizer(model_dir):
    return Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))


def encode(tok, p):
    """Problem -> (ids, mask): mask 1 on reply tokens, 2 on those of the last reply."""
    segments = chatfmt.render(p["messages"] + [{"role": "assistant", **p["reply"]}], p["mode"], p.get("tools"),
                              p.get("response_format"))
    joined = []
    for text, is_reply in segments:
        if joined and not is_reply and not joined[-1][1]:
            joined[-1] = (joined[-1][0] + text, False)
        else:
            joined.append((text, is_reply))
    ids, mask = [], []
    for i, (text, is_reply) in enumerate(joined):
        e = tok.encode(text, add_special_tokens=False).ids
        ids += e
        mask += [0 if not is_reply else 2 if i == len(joined) - 1 else 1] * len(e)
    return ids, mask


def bucket(n):
    return next((b for b in BUCKETS if n <= b), None)


def tensors(rows, T):
    """Rows of (ids, mask) -> ids, mask [N/T, T]; the last row repeats if there are too few."""
    B = N // T
    ids, mask = torch.full((B, T), PAD), torch.zeros(B, T, dtype=torch.long)
    for i in range(B):
        a, m = rows[min(i, len(rows) - 1)]
        ids[i, :len(a)] = torch.tensor(a)
        mask[i, :len(m)] = torch.tensor(m)
    return ids, mask


class Stream:
    """Seeded, endless batches of one kind: short, tool, json, or ('recall', T)."""

    def __init__(self, tok, seed):
        self.tok, self.r, self.pools = tok, random.Random(seed), {}

    def next(self, kind):
        if kind.startswith("recall"):
            T = int(kind[6:])
            rows = []
            while len(rows) < N // T:
                mode = data.weighted(self.r, (("non", 70), ("high", 20), ("max", 10)))
                questions = 1 + self.r.randrange(4 if T <= 384 else 8 if T <= 1152 else 12)
                length = self.r.uniform(0.4, 1.0) * T
                row = encode(self.tok, data.recall(self.r, mode, length, questions))
                if T * 0.4 < len(row[0]) <= T:
                    rows.append(row)
            return tensors(rows, T)
        while True:
            row = encode(self.tok, data.training(self.r, kind))
            T = bucket(len(row[0]))
            if T is None or T > 768:
                continue
            pool = self.pools.setdefault((kind, T), [])
            pool.append(row)
            if len(pool) == N // T:
                self.pools[kind, T] = []
                return tensors(pool, T)
