#!/usr/bin/env python3
"""Structured output against independent implementations.

usage: grammar_oracle.py GRAMMAR_PROBE TOKENIZER.json [--schemas N] [--walks N] [--seed S] [--no-llguidance]

1. Random schemas: every random text that the masks allow must parse with json and validate with jsonschema (formats
   checked); every compile must end within two seconds.
2. Random regular expressions: every text must match Python's re.
3. For some schemas, the set of allowed tokens behind prefixes of valid texts, against llguidance's. Ours may be smaller
   where its header says so (spaces, digits, order, escapes, closed objects); what ours allows and llguidance does not is a
   difference to explain.
"""
import argparse
import json
import pathlib
import random
import re
import subprocess
import sys

import jsonschema

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from random_schemas import document  # noqa: E402


def random_regex(r, depth=3):
    kind = r.randrange(8 if depth > 0 else 4)
    if kind == 0:
        return r.choice(["a", "b", "é", "\\.", "\\d", "\\w", "x", "0"])
    if kind == 1:
        return r.choice(["[a-c]", "[^a\\n]", "[\\d_]", "."])
    if kind in (2, 3):
        return r.choice(["ab", "foo", "-", "\\n"])
    if kind == 4:
        return "(" + random_regex(r, depth - 1) + "|" + random_regex(r, depth - 1) + ")"
    if kind == 5:
        return "(?:" + random_regex(r, depth - 1) + ")" + r.choice(["*", "+", "?", "{2}", "{1,3}", "{0,2}?", "{2,}"])
    return random_regex(r, depth - 1) + random_regex(r, depth - 1)


class Probe:
    def __init__(self, program, tokenizer):
        self.process = subprocess.Popen([program, tokenizer, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **request):
        self.process.stdin.write((json.dumps(request, ensure_ascii=False) + "\n").encode())
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the probe died on {request}")
        return json.loads(line)


def schemas(probe, r, count, walks):
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    texts = cut = refused = 0
    reasons, failures, slowest = {}, [], 0
    for number in range(count):
        schema = document(r)
        answer = probe.ask(schema=schema, walks=walks, seed=number, limit=1500)
        slowest = max(slowest, answer["seconds"])
        if "error" in answer:
            refused += 1
            reasons[answer["error"][:60]] = reasons.get(answer["error"][:60], 0) + 1
            continue
        cut += answer.get("cut", 0)
        validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
        for text in answer["texts"]:
            texts += 1
            try:
                validator.validate(json.loads(text))
            except Exception as fault:  # noqa: BLE001: any fault is a failure of the test
                failures.append((schema, text, str(fault).split("\n")[0]))
    print(f"schemas: {count}, {refused} refused, {texts} texts valid but {len(failures)}, {cut} cut by length, "
          f"slowest answer {slowest:.2f} s")
    for reason, times in reasons.items():
        print(f"  refused {times}: {reason}")
    for schema, text, fault in failures[:5]:
        print(f"  INVALID {json.dumps(schema)}\n    {text}\n    {fault}")
    return not failures


def expressions(probe, r, count):
    bad = texts = 0
    for number in range(count):
        pattern = random_regex(r)
        answer = probe.ask(regex=pattern, walks=5, seed=number, limit=400)
        if "error" in answer:
            print("  refused", pattern, answer)
            bad += 1
            continue
        for text in answer["texts"]:
            texts += 1
            if not re.fullmatch(pattern, text):
                bad += 1
                print("  NO MATCH", repr(pattern), repr(text))
    print(f"regular expressions: {count}, {texts} texts, {bad} wrong")
    return bad == 0


MASK_CASES = [
    ({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
      "required": ["name", "age"], "additionalProperties": False},
     ['', '{', '{"', '{"name":', '{"name":"', '{"name":"Jo', '{"name":"Jo",', '{"name":"Jo","age":', '{"name":"Jo","age":1',
      '{"name":"Jo","age":15', '{"name":"Jo","age":150']),
    ({"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3},
     ['', '[', '["', '["r', '["red"', '["red",', '["red","red","red"']),
    ({"type": "array", "items": {"type": "boolean"}}, ['[', '[t', '[true', '[true,']),
    ({"type": "string", "maxLength": 3}, ['"', '"a', '"ab', '"abc']),
    ({"type": "string", "pattern": "^[a-z]{2,4}-\\d+$"}, ['"', '"ab', '"ab-', '"ab-1', '"abcd']),
    ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, ['', 'n', '1']),
    ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"v": {"type": "null"}, "k": {"type": "array",
      "items": {"$ref": "#/$defs/n"}}}, "required": ["v", "k"], "additionalProperties": False}}},
     ['{"v":null,"k":[', '{"v":null,"k":[{"v":null,"k":[', '{"v":null,"k":[{"v":null,"k":[]', '{"v":null,"k":[{"v":null,"k":[]}']),
]


def masks(probe, tokenizer_path):
    import llguidance
    tokenizer = llguidance.LLTokenizer(open(tokenizer_path, encoding="utf-8").read())
    size = tokenizer.vocab_size
    extra = 0
    print("allowed tokens, ours / llguidance / only ours / only llguidance's:")
    for schema, prefixes in MASK_CASES:
        # Its own limit to one space, so that whitespace differs as little as may be.
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps({**schema, "x-guidance": {
            "item_separator": ", ?", "key_separator": ": ?", "whitespace_flexible": False}}))
        for prefix in prefixes:
            matcher = llguidance.LLMatcher(tokenizer, grammar)
            if matcher.get_error():
                raise SystemExit(matcher.get_error())
            ids = tokenizer.tokenize_str(prefix)
            if not all(matcher.consume_token(i) for i in ids):
                print(f"  {prefix!r}: llguidance does not take the prefix")
                continue
            mask = matcher.compute_bitmask()
            theirs = {i for i in range(size) if mask[i // 8] >> (i % 8) & 1}
            answer = probe.ask(schema=schema, prefix=prefix)
            ours = set(answer["ids"]) if answer.get("ids") is not None else set()
            theirs -= {1}
            ours -= {1}
            only_ours, only_theirs = ours - theirs, theirs - ours
            show = lambda s: [tokenizer.decode_str([i]) for i in sorted(s)[:4]]  # noqa: E731
            print(f"  {prefix!r}: {len(ours)} / {len(theirs)} / {len(only_ours)} {show(only_ours)} / {len(only_theirs)} "
                  f"{show(only_theirs)}")
            extra += len(only_ours)
    return extra


def main():
    options = argparse.ArgumentParser(usage=__doc__)
    options.add_argument("probe")
    options.add_argument("tokenizer")
    options.add_argument("--schemas", type=int, default=500)
    options.add_argument("--walks", type=int, default=6)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--no-llguidance", action="store_true")
    args = options.parse_args()
    probe = Probe(args.probe, args.tokenizer)
    r = random.Random(args.seed)
    good = schemas(probe, r, args.schemas, args.walks)
    good = expressions(probe, r, 200) and good
    if not args.no_llguidance:
        masks(probe, args.tokenizer)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
