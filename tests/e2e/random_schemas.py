"""Random JSON schemas of the keywords that structured output reads, for serve_schemas.py and tests/oracle/grammar_oracle.py."""
NAMES = ["name", "age", "id", "tags", "näme", "x-y", "value", "kind", "next", "a b", "日本"]
QUOTED = ["a\"b", "<tag>", "new\nline"]  # no parameter's name can be one of these, but a member's can
PATTERNS = ["^[a-z]{2,5}$", "^\\d{3}-\\d{2}$", "a+b", "^(foo|bar)+$", "^[^\"\\\\]{0,4}$", "\\w$", "^é.", "^.{3}$", "^$|^x",
            "^[A-Z]{2}[0-9]{4}$", "^(\\(\\d{3}\\) )?\\d{3}-\\d{4}$"]
CLOSED = [p for p in PATTERNS if p.startswith("^") and p.endswith("$") and "+" not in p]  # one length or few
FORMATS = ["date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "hostname", "uri"]
NO_EXTRA = {"additionalProperties": False}


def random_schema(r, depth, defs):
    kinds = ["string", "string", "integer", "number", "boolean", "null", "enum", "const", "types"]
    if depth > 0:
        kinds += ["object"] * 5 + ["array"] * 3 + ["anyOf", "oneOf", "allOf"] + (["ref"] * 3 if defs else [])
    kind = r.choice(kinds)
    if kind == "string":
        s = {"type": "string"}
        what = r.randrange(6)
        if what == 0:
            s["minLength"] = r.randrange(4)
        if what in (0, 1):
            s["maxLength"] = s.get("minLength", 0) + r.randrange(8)
        if what == 2:
            s["pattern"] = r.choice(PATTERNS)
        if what == 3:
            s["format"] = r.choice(FORMATS)
        if what == 4:
            s.update(pattern="^[a-f]*$", maxLength=r.randrange(1, 5))
        return s
    if kind in ("integer", "number"):
        s = {"type": kind}
        low = r.choice([None, r.randrange(-2000, 2000), round(r.uniform(-30, 30), r.randrange(4))])
        high = r.choice([None, (low or 0) + r.randrange(0 if kind == "number" else 2, 500) + 1])
        if low is not None:
            s[r.choice(["minimum", "exclusiveMinimum"])] = low
        if high is not None:
            s[r.choice(["maximum", "exclusiveMaximum"])] = high
        return s
    if kind in ("boolean", "null"):
        return {"type": kind}
    if kind == "enum":
        pool = ["a", "ab", "b\n", "é", "", 0, 1, -5, 2.5, True, None, [1, 2], {"k": "v"}, "long value", "</think>"]
        return {"enum": r.sample(pool, r.randrange(1, 6))}
    if kind == "const":
        return {"const": r.choice(["x", 7, None, [], {"a": [True]}, "q\"\\"])}
    if kind == "types":
        return {"type": r.sample(["string", "integer", "null", "boolean", "array", "object"], r.randrange(1, 4))}
    if kind == "object":
        names = r.sample(NAMES + QUOTED, r.randrange(5))
        s = {"type": "object", "properties": {n: random_schema(r, depth - 1, defs) for n in names}}
        if names and r.random() < 0.7:
            s["required"] = r.sample(names, r.randrange(1, len(names) + 1))
        what = r.randrange(5)
        if what == 0:
            s["additionalProperties"] = random_schema(r, depth - 1, defs)
        elif what < 3:
            s["additionalProperties"] = bool(what - 1)
        return s
    if kind == "array":
        s = {"type": "array"}
        if r.random() < 0.8:
            s["items"] = random_schema(r, depth - 1, defs)
        if r.random() < 0.3:
            s["prefixItems"] = [random_schema(r, depth - 1, defs) for _ in range(r.randrange(1, 3))]
        if r.random() < 0.5:
            s["minItems"] = r.randrange(3)
        if r.random() < 0.5:
            s["maxItems"] = s.get("minItems", 0) + r.randrange(4)
        return s
    if kind == "anyOf":
        return {"anyOf": [random_schema(r, depth - 1, defs) for _ in range(r.randrange(1, 4))]}
    if kind == "oneOf":  # read as anyOf: exact where the alternatives exclude each other
        return {"oneOf": [{"type": "null"}, {"type": "integer"}, {"type": "string", "maxLength": 3}][:r.randrange(1, 4)]}
    if kind == "allOf":
        n = r.sample(NAMES, 3)
        return {"allOf": [{"type": "object", "properties": {n[0]: random_schema(r, depth - 1, defs)}, "required": [n[0]]},
                          {"properties": {n[1]: random_schema(r, depth - 1, defs), n[2]: {"type": "integer"}}}]}
    return {"$ref": "#/$defs/" + r.choice(defs)}


def document(r, of="anything"):
    """A whole schema: of "anything", of an "answer" (mostly an object, as clients send), or of a tool's "parameters"."""
    defs = ["node", "leaf"][:r.randrange(3)]
    if of == "parameters":
        names = r.sample(NAMES, r.randrange(1, 5))
        schema = {"type": "object", "properties": {n: random_schema(r, 2, defs) for n in names},
                  "required": r.sample(names, r.randrange(len(names) + 1)), **NO_EXTRA}
    else:
        schema = random_schema(r, 3, defs)
        if of == "answer" and r.random() < 0.5 and schema.get("type") != "object":
            schema = {"type": "object", "properties": {"answer": schema}, "required": ["answer"], **NO_EXTRA}
    if defs:
        schema["$defs"] = {d: {"type": "object", "properties": {"v": random_schema(r, 1, []),
                               "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/" + r.choice(defs)}]}},
                               "required": ["v"]} for d in defs}
    return schema
