#!/usr/bin/env python3
"""Holds Nautile's tokenizer against the Hugging Face `tokenizers` library (needs: pip install tokenizers).

usage: tokenizer_oracle.py compare TOKENIZER_JSON NAUTILE [--strings N] [--seed S]
       tokenizer_oracle.py tables > src/text/unicode_ranges.inc

compare: N random strings (scripts, digits, kinds of white space, punctuation, emoji, control characters, literals of
         added tokens) go through both; prints every difference and exits 1 if there is one.
tables:  writes the character classes exactly as the reference regex engine (Oniguruma inside `tokenizers`) has them.
"""
import argparse
import json
import random
import subprocess
import sys

CLASSES = (("kLetter", r"\p{L}"), ("kMark", r"\p{M}"), ("kNumber", r"\p{N}"), ("kPunctuation", r"\p{P}"),
           ("kSymbol", r"\p{S}"), ("kSpace", r"\s"))
SURROGATES = range(0xD800, 0xE000)


def members(pattern):
    """Every code point that the one-character `pattern` matches."""
    from tokenizers import Regex, pre_tokenizers
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    found = set()
    for start in range(0, 0x110000, 4096):
        block = [c for c in range(start, start + 4096) if c not in SURROGATES]
        kept = set()
        for piece, _ in split.pre_tokenize_str("".join(map(chr, block))):
            kept.update(map(ord, piece))
        found.update(c for c in block if c not in kept)
    return found


def tables():
    import tokenizers
    of = {}
    for name, pattern in CLASSES:
        for c in members(pattern):
            assert c not in of, f"U+{c:04X} is in two classes"
            of[c] = name
    ranges = []
    for c in sorted(of):
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == of[c]:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, of[c]])
    print(f"// Ranges of code points with their class, as Oniguruma inside tokenizers {tokenizers.__version__} has them (Unicode 16).\n"
          "// Written by tests/oracle/tokenizer_oracle.py tables; do not edit. Code points not listed are in no class.")
    line = ""
    for first, last, name in ranges:
        item = f"{{0x{first:X},0x{last:X},{name}}},"
        if len(line) + len(item) > 240:
            print(line)
            line = ""
        line += item
    print(line)


SCRIPTS = ["abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", " ", "  \t\n\r", "\n", "\r\n",
           ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+`~", "äöüßéèñçøÅŁžş", "αβγδЖдиёъ", "中文汉字测试的一是不龥", "ぁあゟアヿ゠・ーゝ",
           "한국어테스트", "עבריתالعربيةفارسی", "हिन्दीबাংলাதமிழ்ไทยกำ", "½²Ⅷ３４٣४๓①", "．，。！「」《》…“”‘’—–",
           "€£¥₿±×÷∑√∞←→⇒", "😀🐦🚀👩‍👩‍👧🏽🇩🇪❤️", "\u00a0\u1680\u2003\u2028\u2029\u202f\u205f\u3000\u0085",
           "\x00\x01\x1b\x1c\x1d\x1e\x1f\x7f\u0080\u00ad\u200b\u200c\u200d\ufeff\u180e\ufffd", "\u0301\u0308\u20e3\ufe0f\u3099",
           "\U00020000\U0001d400\U000e0001\U0010ffff\ue000\u0378"]
WORDS = ["the", "don't", "it's", "I'll", "function", "return", "snake_case", "CamelCase", "HTTP/1.1", "3.14159", "x=\"y\";\n",
         "https://example.org/a?b=c", "  indent", "\n\n", "</tag>", "日本語", "привет", "naïve", ".\n\n## ", "==>", "i++;\r\n"]


def random_string(rng, literals):
    parts = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.55:
            letters = rng.choice(SCRIPTS)
            parts.append("".join(rng.choice(letters) for _ in range(rng.randint(1, 8))))
        elif kind < 0.8:
            parts.append(rng.choice(WORDS))
        elif kind < 0.9:
            c = rng.choice((rng.randrange(0x250), rng.randrange(0x3100), rng.randrange(0x10000), rng.randrange(0x110000)))
            parts.append(chr(c) if c not in SURROGATES else "?")
        elif kind < 0.96:
            parts.append(rng.choice(literals))
        else:  # a literal cut short must stay text
            literal = rng.choice(literals)
            parts.append(literal[:rng.randint(1, len(literal))])
        if rng.random() < 0.3:
            parts.append(" ")
    return "".join(parts)


def compare(arguments):
    from tokenizers import Tokenizer
    reference = Tokenizer.from_file(arguments.tokenizer)
    with open(arguments.tokenizer, encoding="utf-8") as file:
        literals = [token["content"] for token in json.load(file)["added_tokens"]]
    rng = random.Random(arguments.seed)
    strings = [random_string(rng, literals) for _ in range(arguments.strings)]
    lines = "".join(json.dumps(text) + "\n" for text in strings)
    ours = subprocess.run([arguments.nautile, "tokenize", "--tokenizer", arguments.tokenizer, "--jsonl", "--specials"],
                          input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(ours) == len(strings), f"{len(ours)} answers to {len(strings)} strings"
    different = 0
    for start in range(0, len(strings), 2000):
        batch = strings[start:start + 2000]
        for text, expected, line in zip(batch, reference.encode_batch(batch, add_special_tokens=False), ours[start:]):
            if expected.ids != json.loads(line):
                different += 1
                if different <= 20:
                    print(f"{json.dumps(text)}\n  reference {expected.ids}\n  nautile   {line}")
    print(f"{len(strings)} strings, {sum(map(len, strings))} characters, seed {arguments.seed}: {different} differences")
    return 1 if different else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("tables")
    one = verbs.add_parser("compare")
    one.add_argument("tokenizer")
    one.add_argument("nautile")
    one.add_argument("--strings", type=int, default=100000)
    one.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.verb == "tables":
        tables()
        return 0
    return compare(arguments)


if __name__ == "__main__":
    sys.exit(main())
