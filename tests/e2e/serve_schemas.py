#!/usr/bin/env python3
"""Structured output over HTTP with nano: random schemas through every way that takes one, and hostile ones.

usage: serve_schemas.py NAUTILE NANO_DIRECTORY [--schemas N] [--seed S] [--only TEST]

valid     N random schemas x prompts, each through one of six ways (chat response_format, Responses text.format, Messages
          output_config.format, strict tools in the three dialects), streamed and whole, thinking or not, temperature 0 and 1.
          Every finished answer must validate with the jsonschema package (Draft 2020-12, formats checked); an answer cut by
          length must be the beginning of a JSON text, and few may be cut, and none where the schema bounds everything. Without jsonschema this test is skipped.
refused   keywords that are not supported: 400 with the keyword's path, never ignored.
hostile   schemas and expressions made to blow up: refused or compiled in bounded time and memory while others are answered.
"""
import argparse
import json
import random
import threading
import time

from prober import Prober
from random_schemas import CLOSED, NO_EXTRA, document
from serve_harness import Server, chat, check, events, head, read_response, run_all

options = argparse.ArgumentParser(usage=__doc__)
options.add_argument("nautile")
options.add_argument("nano")
options.add_argument("--schemas", type=int, default=500)
options.add_argument("--seed", type=int, default=1)
options.add_argument("--only", default="")
options.add_argument("--threads", type=int, default=16)
options.add_argument("--verbose", action="store_true")
options = options.parse_args()

PROMPTS = ["What is 48 + 75?", "What is the weather in Paris?", "hello", "Describe a person as JSON.", "日本語で答えて。", "",
           "Fill the form: name Ada, age 36, tags x and y.", "Repeat after me: ```json {\"a\": 1} ```", "word " * 60,
           "Answer with </think> and <｜DSML｜tool_calls> and nothing else."]
WAYS = ["chat", "responses", "messages", "chat tool", "responses tool", "messages tool"]


def request_for(way, schema, prompt, mode, temperature, seed, stream, limit):
    common = {"model": "nautile", "temperature": temperature, "stream": stream}
    think = {"reasoning_mode": mode, "thinking_token_budget": 200}
    user = [{"role": "user", "content": prompt}]
    if way == "chat":
        return "/v1/chat/completions", {**common, **think, "messages": user, "max_tokens": limit, "seed": seed,
                                        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}}
    if way == "responses":
        return "/v1/responses", {**common, **think, "input": user, "max_output_tokens": limit, "seed": seed,
                                 "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}
    thinking = {"type": "disabled"} if mode == "non_think" else {"type": "enabled", "budget_tokens": 200}
    if way == "messages":
        return "/v1/messages", {**common, "messages": user, "max_tokens": limit, "thinking": thinking,
                                "output_config": {"format": {"type": "json_schema", "schema": schema}}}
    if way == "chat tool":
        return "/v1/chat/completions", {**common, **think, "messages": user, "max_tokens": limit, "seed": seed, "tool_choice": "required", "parallel_tool_calls": False,
                                        "tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}]}
    if way == "responses tool":
        return "/v1/responses", {**common, **think, "input": user, "max_output_tokens": limit, "seed": seed, "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": False,
                                 "tools": [{"type": "function", "name": "f", "strict": True, "parameters": schema}]}
    return "/v1/messages", {**common, "messages": user, "max_tokens": limit, "thinking": thinking, "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
                            "tools": [{"name": "f", "strict": True, "input_schema": schema}]}


def read_answer(way, answer, stream):
    """(the JSON text, was it cut by length)"""
    tool = way.endswith("tool")
    if way.startswith("chat"):
        if not stream:
            choice = answer.json()["choices"][0]
            text = choice["message"]["tool_calls"][0]["function"]["arguments"] if tool and choice["message"].get("tool_calls") else choice["message"]["content"]
            return text, choice["finish_reason"] == "length"
        text, reason = "", None
        for _, e in events(answer.body):
            if e == "[DONE]":
                continue
            check("error" not in e, f"{e}")
            delta = e["choices"][0]["delta"]
            for call in delta.get("tool_calls", []):
                text += call["function"].get("arguments", "")
            text += delta.get("content") or ""
            reason = e["choices"][0]["finish_reason"] or reason
        return text, reason == "length"
    if way.startswith("responses"):
        done = [e for _, e in events(answer.body) if e != "[DONE]"][-1]["response"] if stream else answer.json()
        if stream:
            kind = "response.function_call_arguments.delta" if tool else "response.output_text.delta"
            return "".join(e["delta"] for _, e in events(answer.body) if e != "[DONE]" and e["type"] == kind), done["status"] == "incomplete"
        items = [i for i in done["output"] if i["type"] == ("function_call" if tool else "message")]
        text = "" if not items else items[0]["arguments"] if tool else items[0]["content"][0]["text"]
        return text, done["status"] == "incomplete"
    if not stream:
        body = answer.json()
        blocks = [b for b in body["content"] if b["type"] == ("tool_use" if tool else "text")]
        cut = body["stop_reason"] == "max_tokens"
        return ("" if not blocks else json.dumps(blocks[0]["input"]) if tool else blocks[0]["text"]), cut
    text, reason = "", None
    for _, e in events(answer.body):
        check(e["type"] != "error", f"{e}")
        if e["type"] == "content_block_delta":
            text += e["delta"].get("partial_json", "") if tool else e["delta"].get("text", "")
        if e["type"] == "message_delta":
            reason = e["delta"]["stop_reason"]
    return text, reason == "max_tokens"


def is_json_beginning(text):
    """Can `text` be continued to a JSON text? Closes what is open and lets json judge, trying what a cut value could become."""
    stack, string, escape = [], False, False
    for c in text:
        if string:
            if escape:
                escape = False
            elif c == "\\":
                escape = True
            elif c == '"':
                string = False
        elif c == '"':
            string = True
        elif c in "{[":
            stack.append("}" if c == "{" else "]")
        elif c in "}]":
            if not stack or stack.pop() != c:
                return False
    tail = "".join(reversed(stack))
    if string:
        begun = [text + end for end in ('"', '0"', '00"', '000"', '0000"', 'n"', '\\"')]
    else:
        begun = [text + end for end in ("", "0", "null", "rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l", '""', '"":0', ":0", "1")]
    for start in begun:
        for more in ("", ":0"):
            try:
                json.loads(start + more + tail)
                return True
            except ValueError:
                pass
    return False


def leaves_open(schema):
    """Does it let a string, a list or an object grow without end?"""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return True
    if "enum" in schema or "const" in schema:
        return False
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return any(leaves_open(s) for s in schema[key])
    kind = schema.get("type", "object" if "properties" in schema else "any")
    if isinstance(kind, list):
        return bool({"string", "array", "object"} & set(kind))
    if kind == "string":
        return "maxLength" not in schema and schema.get("format", "uri") == "uri" and schema.get("pattern") not in CLOSED
    if kind == "array":
        ends = "maxItems" in schema or "prefixItems" in schema and "items" not in schema
        return not ends or leaves_open(schema.get("items", "prefixItems" not in schema)) or any(leaves_open(s) for s in schema.get("prefixItems", []))
    if kind == "object":
        extra = schema.get("additionalProperties", not schema["properties"])
        return extra is not False or any(leaves_open(s) for s in schema["properties"].values())
    return kind == "any"


def in_string(text):
    inside, escape = False, False
    for c in text:
        escape, inside = (c == "\\" and not escape and inside), (inside ^ (c == '"' and not escape))
    return inside


def valid(nautile):
    try:
        import jsonschema
    except ImportError:
        print("valid: skipped, there is no jsonschema package")
        return
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    r = random.Random(options.seed)
    cases = []
    for i in range(options.schemas):
        way = WAYS[i % len(WAYS)]
        schema = document(r, "parameters" if way.endswith("tool") else "answer")
        cases.append((i, way, schema, r.choice(PROMPTS), r.choice(["non_think", "think_high"]), r.choice([0, 1]), r.random() < 0.5))
    lock, left = threading.Lock(), list(reversed(cases))
    counts = {way: [0, 0, 0] for way in WAYS}  # valid, cut, refused
    wrong, cuts, reasons, tokens = [], [], {}, [0]
    with Server(nautile, backend="engine", model=options.nano) as server:
        def work():
            while True:
                with lock:
                    if not left:
                        return
                    i, way, schema, prompt, mode, temperature, stream = left.pop()
                path, body = request_for(way, schema, prompt, mode, temperature, i, stream, 2500)
                label = f"#{i} {way} {mode} t={temperature} stream={stream}"
                try:
                    with server.connect(300) as s:
                        data = json.dumps(body).encode()
                        s.sendall(head("POST", path, {"Content-Type": "application/json", "Content-Length": len(data)}) + data)
                        answer = read_response(s)
                    if answer.status == 400:
                        error = answer.json()["error"]
                        with lock:
                            counts[way][2] += 1
                            reasons.setdefault(error["message"].split(": ", 1)[-1][:70], []).append((label, schema, error["message"]))
                        continue
                    check(answer.status == 200, f"{answer.status} {answer.body[:300]}")
                    text, cut = read_answer(way, answer, stream)
                    if cut:
                        # A whole answer of Messages shows cut arguments as an empty object.
                        check(is_json_beginning(text), f"cut, and not the beginning of a JSON text: {text[-200:]!r}")
                    else:
                        jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(text))
                    with lock:
                        counts[way][1 if cut else 0] += 1
                        if cut:
                            cuts.append((label, schema, text))
                except Exception as fault:  # noqa: BLE001: whatever it is, it is a fault of the answer
                    with lock:
                        wrong.append((label, schema, f"{type(fault).__name__}: {str(fault)[:400]}"))
        threads = [threading.Thread(target=work) for _ in range(options.threads)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        tokens = server.metric("vllm:generation_tokens_total")
    for way in WAYS:
        print("  {}: {} valid, {} cut by length, {} refused".format(way, *counts[way]))
    total_cut = sum(c[1] for c in counts.values())
    for reason, which in reasons.items():
        print(f"  refused {len(which)}: {reason}    e.g. {which[0][0]} {json.dumps(which[0][1])[:300]}")
    # Where nano went on without end: a string or a list that the schema leaves open. Anything else would be ours.
    kinds = {"in a string": 0, "in a list or among free members": 0, "in a held or short value": 0}
    for label, schema, text in cuts:
        kinds["in a held or short value" if len(text) < 200 else "in a string" if in_string(text) else "in a list or among free members"] += 1
        if options.verbose:
            print(f"  CUT {label} {json.dumps(schema, ensure_ascii=False)[:900]}\n      {len(text)} characters, ...{text[-160:]!r}")
    bounded = [label for label, schema, _ in cuts if not leaves_open(schema)]
    closed = sum(not leaves_open(schema) for _, _, schema, *_ in cases)
    print(f"  cut: {kinds}; {closed} schemas leave nothing open, {len(bounded)} of their answers were cut")
    check(not bounded, f"cut, though the schema leaves nothing open: {bounded}")
    for label, schema, fault in wrong[:8]:
        print(f"  WRONG {label} {json.dumps(schema, ensure_ascii=False)}\n      {fault}")
    print(f"  {tokens:.0f} tokens")
    check(not wrong, f"{len(wrong)} answers do not validate")
    # nano goes on in strings that a schema leaves open.
    check(total_cut * 100 <= 7 * len(cases), f"{total_cut} of {len(cases)} answers ran into the limit")


KEYWORDS = {
    "not": {"not": {"type": "null"}}, "if": {"if": True, "then": False}, "patternProperties": {"patternProperties": {"^x": {}}},
    "unevaluatedProperties": {"unevaluatedProperties": False}, "dependentRequired": {"dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"dependentSchemas": {"a": {}}}, "propertyNames": {"propertyNames": {"pattern": "^a"}},
    "minProperties": {"minProperties": 2}, "maxProperties": {"maxProperties": 2}, "multipleOf": {"type": "number", "multipleOf": 3},
    "uniqueItems": {"type": "array", "uniqueItems": True}, "contains": {"type": "array", "contains": {"type": "null"}},
    "unevaluatedItems": {"type": "array", "unevaluatedItems": False}, "$dynamicRef": {"$dynamicRef": "#node"},
    "maxlength": {"type": "string", "maxlength": 3}, "additionalItems": {"type": "array", "additionalItems": False},
    "$ref": {"$ref": "https://example.com/schema.json"}, "format": {"type": "string", "format": "iri-reference"},
    "pattern": {"type": "string", "pattern": "(?=a)b"},
}


def refused(nautile):
    with Server(nautile, backend="engine", model=options.nano) as server:
        for way in WAYS:
            for keyword, inner in KEYWORDS.items():
                for place, schema in (("properties.a", {"type": "object", "properties": {"a": inner}}),
                                      ("properties.b.items", {"type": "object", "properties": {"b": {"type": "array", "items": inner}}, "required": ["b"]})):
                    path, body = request_for(way, schema, "hi", "non_think", 0, 1, False, 5)
                    answer = server.post(path, body)
                    check(answer.status == 400, f"{way} {keyword} at {place}: {answer.status} {answer.body[:300]}")
                    error = answer.json()["error"]
                    check(f"{place}.{keyword}" in error["message"], f"{way} {keyword} at {place}: {error}")
                    check(way.startswith("messages") or error["code"] in ("invalid_schema", "invalid_regex"), f"{error}")
        # Without strict they may be ignored, and are named.
        for keyword in ("not", "multipleOf", "uniqueItems", "patternProperties"):
            schema = {"type": "object", "properties": {"a": KEYWORDS[keyword]}, "required": ["a"], **NO_EXTRA}
            body = chat("hi", reasoning_mode="non_think", max_tokens=5)
            for more in (dict(response_format={"type": "json_schema", "json_schema": {"strict": False, "schema": schema}}),
                         dict(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])):
                answer = server.post("/v1/chat/completions", {**body, **more})
                check(answer.status == 200 and f"properties.a.{keyword}" in answer.headers.get("x-ignored-fields", ""), f"{answer.status} {answer.headers}")


def nested(depth, leaf, one):
    for _ in range(depth):
        leaf = one(leaf)
    return leaf


def hostile_requests():
    form = lambda schema: {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}  # noqa: E731
    tools = lambda *schemas: {"tool_choice": "required", "tools": [{"type": "function", "function": {"name": f"f{i}", "strict": True, "parameters": s}} for i, s in enumerate(schemas)]}  # noqa: E731
    obj = lambda **p: {"type": "object", "properties": p, "required": sorted(p), **NO_EXTRA}  # noqa: E731
    twice = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    either = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}
    wide = {f"d{i}": obj(a={"$ref": f"#/$defs/d{i + 1}"}, b={"$ref": f"#/$defs/d{i + 1}"}) for i in range(40)}
    yield "exponential allOf", form({"$ref": "#/$defs/d0", "$defs": {**twice, "d40": {"type": "integer"}}})
    yield "exponential anyOf", form({"$ref": "#/$defs/d0", "$defs": {**either, "d40": {"type": "integer"}}})
    yield "exponential objects", form({"$ref": "#/$defs/d0", "$defs": {**wide, "d40": {"type": "integer"}}})
    yield "product of alternatives", form({"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "integer"}}} for j in range(4)]} for i in range(20)]})
    yield "itself", form({"$ref": "#"})
    yield "itself by allOf", form({"allOf": [{"$ref": "#"}]})
    yield "each other", form({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})
    yield "never ends", form({"$ref": "#/$defs/a", "$defs": {"a": obj(a={"$ref": "#/$defs/a"})}})
    yield "nesting 30", form(nested(30, {"type": "integer"}, lambda s: obj(a=s)))
    yield "nesting 60", form(nested(55, {"type": "integer"}, lambda s: {"items": s}))
    yield "nesting 5000", form(nested(450, {"type": "integer"}, lambda s: {"items": s}))
    guided = lambda schema: {"guided_json": schema}  # noqa: E731: not part of the prompt, so that it reaches the compiler
    yield "10,000 values", guided({"enum": [f"value {i:05} {i}" for i in range(10000)]})
    yield "10,001 values", guided({"enum": list(range(10001))})
    yield "12 times 4,000 values", guided(obj(**{f"p{i}": {"enum": list(range(4000))} for i in range(12)}))
    yield "50 times 5,000 values", guided(obj(**{f"p{i}": {"enum": list(range(5000))} for i in range(50)}))
    for text in ("(a+)+$", "(a|a)*b", "(x+x+)+y", "(((a*)*)*)*b", "^(a?){60}a{60}$", "(.*)(.*)(.*)(.*)(.*)(.*)z", "^(.{1,50}){1,50}$", "[a-z]{1000}{1000}",
                 "(a{1,100}){1,100}{1,100}", "^.{0,100000}$", "(" * 2000 + ")" * 2000, "|".join(f"w{i}x*" for i in range(20000)), "(\\p{L}|\\w|.)*(\\d|\\s)+" * 40,
                 "(.*a.{18})", "(.*a.{60})"):
        yield f"pattern {text[:30]}", form(obj(a={"type": "string", "pattern": text}))
        yield f"regex {text[:30]}", {"guided_regex": text}
    for n in (1000, 10**5, 10**9, 10**18):
        yield f"maxLength {n}", form(obj(a={"type": "string", "maxLength": n}))
        yield f"minLength {n}", form(obj(a={"type": "string", "minLength": n}))
        yield f"maxItems {n}", form({"type": "array", "items": obj(a={"type": "string"}), "maxItems": n})
        yield f"minItems {n}", form({"type": "array", "items": {"type": "null"}, "minItems": n})
        yield f"maxLength {n} and pattern", form(obj(a={"type": "string", "maxLength": n, "pattern": "^(ab|a|b)*$"}))
    yield "nested maxItems", form(nested(12, {"type": "integer"}, lambda s: {"type": "array", "items": s, "maxItems": 40}))
    yield "nested minItems", form(nested(12, {"type": "integer"}, lambda s: {"type": "array", "items": s, "minItems": 40}))
    yield "number bounds", form({"type": "number", "minimum": 1.23456789012345e-15, "maximum": 9.87654321e17})
    yield "200 optional members", form({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(200)}, **NO_EXTRA})
    yield "4,000 members", guided({"type": "object", "properties": {f"p{i}": {"type": "string", "maxLength": 20} for i in range(4000)}, **NO_EXTRA})
    yield "a schema of 255 KiB", guided({"type": "object", "properties": {f"p{i}": {"description": "d" * 40} for i in range(3900)}})
    yield "a schema of 25 MiB", guided({"type": "object", "properties": {f"p{i}": {"description": "d" * 200} for i in range(110000)}})
    yield "128 tools", tools(*({"type": "object", "properties": {f"p{j}": {"type": "string", "maxLength": 20}}} for j in range(128)))
    yield "a schema of 25 MiB in the prompt", form({"type": "object", "properties": {f"p{i}": {"description": "d" * 200} for i in range(110000)}})
    yield "1,000 parameters", tools({"type": "object", "properties": {f"p{j}": {"type": "string"} for j in range(1000)}})
    yield "64 required parameters", tools(obj(**{f"p{j}": {"type": "string", "pattern": "(.*a.{9})"} for j in range(64)}))
    yield "100,000 choices", {"guided_choice": [f"choice {i} {i * i}" for i in range(100000)]}
    yield "a choice of 10 MiB", {"guided_choice": ["x" * (10 << 20)]}
    yield "left recursion", {"guided_grammar": "root ::= root \"a\" | \"b\""}
    yield "grammar repetition", {"guided_grammar": "root ::= (((\"a\"{1,1000}){1,1000}){1,1000})"}
    yield "grammar parentheses", {"guided_grammar": "root ::= " + "(" * 100000 + "\"a\"" + ")" * 100000}
    yield "ambiguous grammar", {"guided_grammar": "root ::= e\ne ::= e2 e | e2\ne2 ::= \"a\" | \"a\" e2 | \"a\" e e2 \"b\" | \"a\"* e2"}
    yield "1,000,000 rules", {"guided_grammar": "root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1} | \"a\"" for i in range(300000)) + "\nr300000 ::= \"b\""}


def peak_mb(server):
    for line in open(f"/proc/{server.process.pid}/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0


def hostile(nautile):
    with Server(nautile, backend="engine", model=options.nano) as server:
        server.post("/v1/chat/completions", chat("hello", max_tokens=20))
        asked, over = [], threading.Event()

        def ask_on():
            while not over.is_set():
                begin = time.time()
                status = server.post("/v1/chat/completions", chat("What is 48 + 75?", reasoning_mode="non_think", max_tokens=8)).status
                asked.append(time.time() - begin)
                check(status == 200, f"{status}")
                time.sleep(0.02)
        prober, other = Prober(server.port), threading.Thread(target=ask_on)
        other.start()
        rows, before = [], peak_mb(server)
        try:
            for name, fields in hostile_requests():
                body = json.dumps(chat("hi", reasoning_mode="non_think", max_tokens=60, temperature=1, seed=1, **fields)).encode()
                base, begin = peak_mb(server), time.time()
                first_asked = len(asked)
                answer = server.post("/v1/chat/completions", body)
                took = time.time() - begin
                rows.append((took, name, answer.status, "" if answer.status == 200 else answer.json()["error"]["message"][:90], peak_mb(server) - base,
                             begin, max(asked[first_asked:] or [0])))
                check(answer.status in (200, 400, 413), f"{name}: {answer.status} {answer.body[:300]}")
                check(answer.status != 400 or answer.json()["error"]["message"], name)
                if answer.status == 200:
                    text = answer.json()["choices"][0]["message"]["content"]
                    check("response_format" not in fields or is_json_beginning(text), f"{name}: {text!r}")
            # All that took long at once, and never seen before.
            slow = [name for took, name, *_ in sorted(rows, reverse=True)[:8]]
            first_asked, begin = len(asked), time.time()
            flood = [threading.Thread(target=lambda f=fields, n=n: server.post("/v1/chat/completions", chat("hi", reasoning_mode="non_think", max_tokens=20, user=f"u{n}", **f)))
                     for n in range(2) for name, fields in hostile_requests() if name in slow]
            for t in flood:
                t.start()
            for t in flood:
                t.join()
            flooded = (begin, time.time(), max(asked[first_asked:] or [0]))
        finally:
            over.set()
            other.join()
            probes = prober.stop()
        slowest = lambda begin, end: max([took for at, took in probes if begin <= at < end] or [0])  # noqa: E731
        rows = [(took, name, status, message, grown, slowest(begin, begin + took), answer) for took, name, status, message, grown, begin, answer in rows]
        print(f"  {len(flood)} of the slowest at once: {flooded[1] - flooded[0]:.1f} s, slowest probe {slowest(*flooded[:2]) * 1e3:.0f} ms, answer to others {flooded[2] * 1e3:.0f} ms")
        times = sorted(took for _, took in probes)
        print(f"  {len(rows)} requests: {sum(r[2] == 200 for r in rows)} answered, {sum(r[2] != 200 for r in rows)} refused; peak memory {before:.0f} -> {peak_mb(server):.0f} MB; "
              f"meanwhile {len(times)} probes, p99 {times[len(times) * 99 // 100] * 1e3:.1f} ms, slowest {times[-1] * 1e3:.0f} ms, {len(asked)} answers to others, slowest {max(asked) * 1e3:.0f} ms")
        for row in sorted(rows, reverse=True)[:12 if not options.verbose else 1000]:
            print("    {:6.2f} s  {}: {} {}  (+{:.0f} MB; probe {:.3f} s, others {:.3f} s)".format(*row))
        check(max(r[0] for r in rows) < 10 and times[len(times) * 99 // 100] < 0.05 and times[-1] < 0.25 and max(asked) < 20, "a hostile schema held the server up")
        check(peak_mb(server) - before < 1500, f"memory grew by {peak_mb(server) - before:.0f} MB")


if __name__ == "__main__":
    tests = [t for t in (refused, hostile, valid) if options.only in ("", t.__name__)]
    run_all(tests, options.nautile)
