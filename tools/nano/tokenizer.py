"""nano's tokenizer: byte-level BPE with DeepSeek-V4's structure, trained on nano's own generated texts.

    python tokenizer.py OUT_DIR      writes tokenizer.json and tokenizer_config.json
Digits never merge. Ids: 0..2 BOS, EOS, pad; 3..258 the bytes; then one id per merge; added tokens at the end.
"""
import json
import os
import random
import re
import sys

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

import chatfmt
import data

VOCAB = 1536
SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
ADDED = ("<｜fim▁hole｜> <｜fim▁begin｜> <｜fim▁end｜> <｜User｜> <｜Assistant｜> <|EOT|> <｜tool▁calls▁begin｜> "
         "<｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> "
         "<｜tool▁output▁begin｜> <｜tool▁output▁end｜> <｜tool▁sep｜> <think> </think> ｜DSML｜ <｜begin▁sys｜> <｜end▁sys｜> "
         "<｜latest_reminder｜> <｜action｜> <｜query｜> <｜authority｜> <｜domain｜> <｜task｜> <｜title｜> <｜search｜> "
         "<｜extracted_url｜> <｜read_url｜>").split(" ")
NORMALIZED = set(ADDED[:15])
SPLITS = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
          "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
          "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]


def pre_tokenizer():
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(s), "isolated") for s in SPLITS]
                                   + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_order():
    order = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in order]
    table = {b: chr(b) for b in order}
    for i, b in enumerate(rest):
        table[b] = chr(256 + i)
    return [table[b] for b in order + rest]


def corpus():
    r = random.Random(7)
    cut = re.compile("|".join(map(re.escape, SPECIAL + ADDED)) + r"|\d")
    texts = []
    for i in range(6000):
        kind = data.weighted(r, (("short", 5), ("tool", 4), ("json", 3), ("recall", 4)))
        if kind == "recall":
            p = data.recall(r, data.pick(r, data.MODES), 300, 2)
        else:
            p = data.training(r, kind)
        ms = p["messages"] + [{"role": "assistant", **p["reply"]}]
        texts += [t for t, _ in chatfmt.render(ms, p["mode"], p.get("tools"), p.get("response_format"))]
    texts += [" ".join(data.ADJ + data.NOUN + data.VALUE + data.WORDS + data.NAMES + data.CITIES)] * 60
    texts += [" ".join(data.WORDS).replace(" ", "\n")] * 60
    for t in texts:
        yield from (x for x in cut.split(t) if x)


def build():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizer()
    want = VOCAB - 259 - len(ADDED)
    trainer = trainers.BpeTrainer(vocab_size=256 + want, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=[], show_progress=False)
    t.train_from_iterator(corpus(), trainer)
    merges = [tuple(m) if not isinstance(m, str) else tuple(m.split(" ")) for m in json.loads(t.to_str())["model"]["merges"]]
    vocab = {s: i for i, s in enumerate(SPECIAL + byte_order())}
    for a, b in merges:
        assert a + b not in vocab and not re.search(r"\d", a + b), (a, b)
        vocab[a + b] = len(vocab)
    assert len(vocab) == 259 + want, (len(vocab), want)
    def entry(i, text):
        return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": text in NORMALIZED, "special": i < 3 or text == "<|EOT|>"}
    added = [entry(i, s) for i, s in enumerate(SPECIAL)]
    added += [entry(len(vocab) + i, s) for i, s in enumerate(ADDED)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": []},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": s}, "behavior": "Isolated", "invert": False} for s in SPLITS]
            + [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                  "merges": [f"{a} {b}" for a, b in merges]},
    }


def main(out):
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(build(), f, ensure_ascii=False, indent=1)
    special = {"__type": "AddedToken", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    with open(os.path.join(out, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"add_bos_token": False, "add_eos_token": False, "bos_token": {**special, "content": SPECIAL[0]},
                   "eos_token": {**special, "content": SPECIAL[1]}, "pad_token": {**special, "content": SPECIAL[1]},
                   "model_max_length": 16384, "tokenizer_class": "PreTrainedTokenizerFast"}, f, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main(sys.argv[1])
