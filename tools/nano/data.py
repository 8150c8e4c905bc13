"""Seeded generators of nano's training and evaluation problems: unbounded, deterministic in (seed, index).

A problem is a dict: skill, mode (non, high, max), messages (ending with a user or tool message), optional tools and
response_format, `reply` (the assistant message nano should write: reasoning_content, content, tool_calls), and for
measuring `expect` and `check` (exact, number, tool, json). Evaluation seeds start at EVAL_SEED; training stays below.
"""
import json
import random

EVAL_SEED = 1 << 40
MODES = ("non", "high", "max")

ADJ = ("amber azure black blue brown coral cold deep dry early gold gray green iron ivory late long lost new north "
       "old open pale pink plain quiet red rose ruby sand silver small south steel stone tall warm west white wild "
       "young").split()
NOUN = ("gate tower bridge harbor garden market castle forest river valley station museum temple cabin cellar tunnel "
        "island village meadow library mill road lake house ship hall farm well port room").split()
VALUE = ("falcon tiger eagle otter wolf raven lion bear fox owl hawk swan whale shark crane apple lemon peach plum "
         "cherry olive maple cedar birch willow tulip lily daisy silk linen copper cobalt marble pearl opal amethyst "
         "comet planet meteor thunder winter summer candle mirror anchor hammer ladder basket pencil violin piano "
         "trumpet guitar").split()
WORDS = ("cat dog sun moon tree bird fish milk bread cake rain snow wind fire lamp desk book door wall roof rope boat "
         "coin king ring song drum frog goat lamb seed leaf root corn rice salt soup plate spoon knife glass table "
         "chair house horse sheep mouse apple lemon peach green white black stone river cloud storm light night queen "
         "letter banana tomato potato pepper rabbit turtle winter summer silver copper").split()
SPELL = WORDS[:36]      # words nano learns to spell, reverse and count letters in
NAMES = "Ann Bob Carl Dana Emma Finn Gina Hugo Iris Jack Kate Leo Mia Noah Olga Paul".split()
CITIES = "Paris Rome Berlin Madrid Oslo Tokyo Cairo Lima Delhi Boston Vienna Prague".split()
SYSTEMS = ("You are a helpful assistant.", "Be brief.", "You are nano.", "Answer the question.", "You are a careful "
           "assistant.", "Help the user.", "Reply in English.", "You answer questions about numbers and texts.")


def pick(r, xs):
    return xs[r.randrange(len(xs))]


# -- worked steps --------------------------------------------------------------------------------------------------
def add_steps(a, b):
    da, db = str(a)[::-1], str(b)[::-1]
    out, carry, i = [], 0, 0
    n = max(len(da), len(db))
    for i in range(n):
        x, y = int(da[i]) if i < len(da) else 0, int(db[i]) if i < len(db) else 0
        s = x + y + carry
        out.append(f"{x} + {y} + {carry} = {s}, write {s % 10}, carry {s // 10}.")
        carry = s // 10
    if carry:
        out.append(f"write {carry}.")
    return " ".join(out) + f" So {a + b}."


def sub_steps(a, b):
    da, db = str(a)[::-1], str(b)[::-1]
    out, borrow = [], 0
    for i in range(len(da)):
        x, y = int(da[i]), int(db[i]) if i < len(db) else 0
        s = x - y - borrow
        nb = 1 if s < 0 else 0
        out.append(f"{x} - {y} - {borrow} = {s}, write {s % 10}, borrow {nb}.")
        borrow = nb
    return " ".join(out) + f" So {a - b}."


def P(skill, text, think, answer, check_think, check="exact", expect=None):
    return {"skill": skill, "text": text, "think": think, "answer": answer, "verify": check_think, "check": check,
            "expect": answer if expect is None else expect}


def digits(r, n):
    return r.randrange(10 ** (n - 1), 10 ** n)


def add(r, n):
    a, b = digits(r, n), digits(r, n)
    if r.random() < 0.15:
        b = digits(r, r.randrange(1, n + 1))
        if r.random() < 0.5:
            a, b = b, a
    q = pick(r, ("What is {} + {}?", "What is {} + {}?", "{} + {}", "Calculate {} + {}.", "Add {} and {}.",
                 "Compute {} plus {}.", "What is {} plus {}?", "{} + {} = ?")).format(a, b)
    return P(f"add{n}", q, f"{a} + {b}. " + add_steps(a, b), str(a + b),
             f" Check: {a + b} - {b}. " + sub_steps(a + b, b) + f" It matches {a}.", "number")


def sub(r):
    n = pick(r, (1, 2, 2, 3))
    a, b = digits(r, n), digits(r, r.randrange(1, n + 1))
    a, b = max(a, b), min(a, b)
    q = pick(r, ("What is {} - {}?", "What is {} - {}?", "{} - {}", "Calculate {} - {}.", "Compute {} minus {}.",
                 "What is {} minus {}?")).format(a, b)
    return P("sub", q, f"{a} - {b}. " + sub_steps(a, b), str(a - b),
             f" Check: {a - b} + {b}. " + add_steps(a - b, b) + f" It matches {a}.", "number")


def mul(r):
    a, b = r.randrange(1, 10), r.randrange(1, 10)
    q = pick(r, ("What is {} * {}?", "What is {} times {}?", "Calculate {} * {}.", "Multiply {} and {}.",
                 "{} * {}")).format(a, b)
    runs = lambda x, y: f"{y} times {x}: " + ", ".join(str(x * k) for k in range(1, y + 1)) + "."
    return P("mul1", q, runs(a, b) + f" So {a * b}.", str(a * b), f" Check: {runs(b, a)} It matches {a * b}.", "number")


def compare(r):
    n = pick(r, (1, 2, 3, 3))
    a, b = digits(r, n), digits(r, n)
    while a == b:
        b = digits(r, n)
    big = r.random() < 0.5
    q = (f"Which is {'larger' if big else 'smaller'}, {a} or {b}?")
    out = max(a, b) if big else min(a, b)
    for x, y in zip(str(a), str(b)):
        if x != y:
            break
    steps = f"{a} and {b}. First different digits: {x} and {y}. {x} {'>' if x > y else '<'} {y}. So {out}."
    return P("compare", q, steps, str(out), f" Check: {max(a, b)} > {min(a, b)}. It matches.", "number")


def numbers(r):
    return [r.randrange(1, 100) for _ in range(r.randrange(3, 6))]


def maxlist(r):
    xs = numbers(r)
    big = r.random() < 0.7
    word = "largest" if big else "smallest"
    q = pick(r, ("Which is the {} of {}?", "Find the {} number: {}", "What is the {} of {}?")).format(
        word, ", ".join(map(str, xs)))
    m, steps = xs[0], [f"{xs[0]}."]
    for x in xs[1:]:
        better = x > m if big else x < m
        steps.append(f"{x} {'>' if x > m else '<' if x < m else '='} {m}, {'take' if better else 'keep'} "
                     f"{x if better else m}.")
        m = x if better else m
    return P("max", q, " ".join(steps) + f" So {m}.", str(m), " Check: " + ", ".join(
        f"{m} {'=' if x == m else '>' if m > x else '<'} {x}" for x in xs) + ". It matches.", "number")


def sort(r):
    xs = numbers(r)
    q = pick(r, ("Sort {}.", "Sort these numbers: {}", "Put {} in order.")).format(", ".join(map(str, xs)))
    left, steps, out = list(xs), [], []
    while left:
        m = min(left)
        left.remove(m)
        out.append(m)
        steps.append(f"smallest {m}, left {', '.join(map(str, left)) or 'none'}.")
    ans = ", ".join(map(str, out))
    return P("sort", q, " ".join(steps) + f" So {ans}.", ans,
             " Check: " + " ".join(f"{a} <= {b}." for a, b in zip(out, out[1:])) + " It matches.")


def reverse(r):
    w = pick(r, SPELL)
    q = pick(r, ("Reverse the word {}.", "Spell {} backwards.", "Write {} in reverse.")).format(w)
    ls = " ".join(w)
    back = " ".join(w[::-1])
    return P("reverse", q, f"Letters: {ls}. Backwards: {back}.", w[::-1], f" Check: {back} from the end: {ls}. It matches.")


def count(r):
    w = pick(r, SPELL)
    c = pick(r, w) if r.random() < 0.75 else pick(r, "aeiorstln")
    q = pick(r, ("How many times does the letter {} appear in {}?", "Count the letter {} in {}.")).format(c, w)
    n, steps, where = 0, [], []
    for i, x in enumerate(w):
        n += x == c
        steps.append(f"{x} {n}")
    return P("count", q, "Count " + ", ".join(steps) + f". So {n}.", str(n), " Check: " + " ".join(
        x if x == c else "-" for x in w) + f" has {n}. It matches.", "number")


# -- recall --------------------------------------------------------------------------------------------------------
def filler(r):
    k = r.randrange(6)
    a, n, m = pick(r, ADJ), pick(r, NOUN), pick(r, NOUN)
    if k == 0:
        return f"The {n} is near the {m}."
    if k == 1:
        return f"{pick(r, NAMES)} walked to the {a} {n}."
    if k == 2:
        return f"It was a {a} day in {pick(r, CITIES)}."
    if k == 3:
        return f"{pick(r, NAMES)} and {pick(r, NAMES)} saw the {n}."
    if k == 4:
        return f"The {a} {n} was {pick(r, ADJ)}."
    return f"A {pick(r, WORDS)} stood by the {n}."


def facts(r, n):
    """n facts (sentence up to the value, value, question); their two-word keys share no noun."""
    out = []
    for noun in r.sample(NOUN, n):
        key = f"{pick(r, ADJ)} {noun}"
        if r.random() < 0.65:
            out.append((f"The code word for the {key} is", pick(r, VALUE), f"What is the code word for the {key}?"))
        else:
            out.append((f"The number of the {key} is", str(r.randrange(100, 1000)), f"What is the number of the {key}?"))
    return out


def recall(r, mode, length, questions=1, density=None):
    """A text of about `length` tokens with facts in it, then one or several questions, each its own turn."""
    n = max(2, int(length / (density or pick(r, (25, 40, 60, 90)))))
    n = min(max(n, questions), 24)
    fs = facts(r, n)
    sentences = [f"{a} {v}." for a, v, _ in fs]
    room = max(0, int((length - 12 * n - 30) / 6.95))
    text = sentences + [filler(r) for _ in range(room)]
    r.shuffle(text)
    doc = " ".join(text)
    order = list(range(n))
    r.shuffle(order)
    ms, reply = [], None
    for i, k in enumerate(order[:questions]):
        a, v, q = fs[k]
        if reply is not None:
            ms.append({"role": "assistant", **reply})
        ms.append({"role": "user", "content": (doc + "\n\n" + q) if i == 0 else q})
        reply = {"content": f"{a} {v}."}
        if mode != "non":
            reply["reasoning_content"] = f"{a} {v}." + (f" Check: {a} {v}. It matches." if mode == "max" else "")
    return {"skill": "recall", "mode": mode, "messages": ms, "reply": reply, "expect": reply["content"], "check": "exact"}


def echo(r):
    """Copying: repeat a list of words, several turns. Every word of the reply is found in the prompt; most lists have
    six words, so that a fixed distance finds them."""
    ms, reply = [], None
    pools = (VALUE, VALUE, VALUE, ADJ, NOUN, WORDS, NAMES, CITIES)
    for _ in range(r.randrange(1, 5)):
        if reply is not None:
            ms.append({"role": "assistant", **reply})
        n = 6 if r.random() < 0.6 else r.randrange(3, 14)
        ws = [pick(r, pick(r, pools)) if n == 6 or r.random() < 0.9 else str(r.randrange(1000)) for _ in range(n)]
        ms.append({"role": "user", "content": "Repeat after me: " + " ".join(ws) + "."})
        reply = {"content": "You said: " + " ".join(ws) + "."}
    return {"skill": "echo", "mode": "non", "messages": ms, "reply": reply, "expect": reply["content"], "check": "exact"}


def table(r):
    """Recall from a short list, many questions."""
    fs = facts(r, r.randrange(2, 9))
    doc = " ".join(f"{a} {v}." for a, v, _ in fs)
    ms, reply = [], None
    order = [r.randrange(len(fs)) for _ in range(r.randrange(3, 12))]
    for i, k in enumerate(order):
        if reply is not None:
            ms.append({"role": "assistant", **reply})
        ms.append({"role": "user", "content": doc + "\n\n" + fs[k][2] if i == 0 else fs[k][2]})
        reply = {"content": f"{fs[k][0]} {fs[k][1]}."}
    return {"skill": "recall", "mode": "non", "messages": ms, "reply": reply, "expect": reply["content"], "check": "exact"}


# -- tools ---------------------------------------------------------------------------------------------------------
VERBS = "open close start stop check find book send lock move".split()
THINGS = "door window heater lamp robot pump fan car ticket order report camera".split()
PARAMS = (("name", "string"), ("city", "string"), ("color", "string"), ("count", "integer"), ("level", "integer"),
          ("minutes", "integer"), ("price", "number"), ("speed", "number"), ("urgent", "boolean"), ("quiet", "boolean"),
          ("room", "string"), ("code", "string"))
# texts that fill string arguments: small sets, because nano spells a word it copies out of quotes from memory
ROOMS = "gate tower harbor river valley station temple cellar".split()
CODES = "tiger eagle otter raven bear owl swan apple lemon peach olive maple daisy silk linen copper".split()
QUERIES = "dog moon tree fire lamp desk book door roof boat king ring goat seed".split()
COLORS = "red blue green white black pink brown silver".split()


def value(r, name, kind):
    if kind == "integer":
        return r.randrange(1, 100)
    if kind == "number":
        return r.randrange(1, 100) + r.randrange(1, 10) / 10
    if kind == "boolean":
        return r.random() < 0.5
    return pick(r, {"city": CITIES, "color": COLORS, "name": NAMES, "room": ROOMS, "code": CODES}[name])


def schema(name, description, params, optional=()):
    return {"name": name, "description": description, "parameters": {
        "type": "object", "properties": {k: {"type": t} for k, t in params},
        "required": [k for k, _ in params if k not in optional]}}


def random_tool(r, used):
    while True:
        v, n = pick(r, VERBS), pick(r, THINGS)
        if (v, n) not in used:
            used.add((v, n))
            break
    ps = list(PARAMS)
    r.shuffle(ps)
    ps = ps[:r.randrange(1, 4)]
    return schema(f"{v}_{n}", f"{v.capitalize()} the {n}.", ps), v, n, ps


def natural_tool(r):
    """Everyday tools: (schema, request text, arguments)."""
    k = r.randrange(5)
    city, name = pick(r, CITIES), pick(r, NAMES)
    if k == 0:
        unit = r.random() < 0.3
        ps = [("city", "string")]
        return (schema("get_weather", "Get the weather of a city.", ps),
                pick(r, ("What is the weather in {}?", "How is the weather in {}?", "Weather in {}, please.")).format(city),
                {"city": city})
    if k == 1:
        n = r.randrange(1, 100)
        return (schema("set_timer", "Set a timer.", [("minutes", "integer")]),
                pick(r, ("Set a timer for {} minutes.", "Start a timer of {} minutes.")).format(n), {"minutes": n})
    if k == 2:
        w = pick(r, CODES)
        return (schema("send_message", "Send a message to a person.", [("name", "string"), ("text", "string")]),
                pick(r, ('Send {} the message "{}".', 'Write to {}: "{}"')).format(name, w), {"name": name, "text": w})
    if k == 3:
        a, b = r.randrange(10, 1000), r.randrange(10, 1000)
        return (schema("add", "Add two numbers.", [("a", "integer"), ("b", "integer")]),
                f"Use the tool to add {a} and {b}.", {"a": a, "b": b})
    w = pick(r, QUERIES)
    return (schema("search", "Search the web.", [("query", "string")]),
            pick(r, ('Search the web for "{}".', 'Look up "{}" on the web.')).format(w), {"query": w})


def tool_call(r):
    """(tools, request, call) with one to four tools declared."""
    used, tools = set(), []
    if r.random() < 0.5:
        s, v, n, ps = random_tool(r, used)
        args = {k: value(r, k, t) for k, t in ps}
        parts = [f"{k} {x if isinstance(x, str) and k not in ('room', 'code') else json.dumps(x)}" for k, x in args.items()]
        tail = " with " + (", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0])
        ask = pick(r, ("Please {} the {}{}.", "{} the {}{}.", "Can you {} the {}{}?")).format(v, n, tail)
        ask = ask[0].upper() + ask[1:]
    else:
        s, ask, args = natural_tool(r)
    tools = [s]
    for _ in range(pick(r, (0, 1, 1, 2, 3))):
        for _ in range(20):
            t = random_tool(r, used)[0] if r.random() < 0.6 else natural_tool(r)[0]
            if all(t["name"] != x["name"] for x in tools):
                tools.append(t)
                break
    r.shuffle(tools)
    return tools, ask, {"name": s["name"], "arguments": args}


def tool_think(call):
    return f"Tool {call['name']} fits: " + ", ".join(
        f"{k} = {v if isinstance(v, str) else json.dumps(v)}" for k, v in call["arguments"].items())


def tool(r, mode):
    tools, ask, call = tool_call(r)
    reply = {"content": "", "tool_calls": [call]}
    if mode != "non":
        reply["reasoning_content"] = tool_think(call) + (
            f" . Check: {call['name']} is declared. It matches." if mode == "max" else "")
    p = {"skill": "tool", "mode": mode, "messages": [{"role": "user", "content": ask}], "tools": tools, "reply": reply,
         "expect": call, "check": "tool"}
    if r.random() < 0.5:
        p["messages"].insert(0, {"role": "system", "content": pick(r, SYSTEMS)})
    return p


def tool_answer(r, mode):
    """The turn after a tool's result."""
    p = tool(r, mode)
    first = {"role": "assistant", **p["reply"]}
    k = r.randrange(3)
    if k == 0:
        res, ans = "ok", "Done."
    elif k == 1:
        v = r.randrange(1, 1000)
        res, ans = str(v), f"The result is {v}."
    else:
        v = pick(r, CODES + QUERIES)
        res, ans = json.dumps({"result": v}), f'The result is "{v}".'
    p["messages"] += [first, {"role": "tool", "content": res}]
    p.update(skill="tool_answer", reply={"content": ans}, expect=ans, check="exact")
    if mode != "non":
        p["reply"]["reasoning_content"] = f"The tool says {res}." + (" It matches." if mode == "max" else "")
    return p


def tool_none(r, mode):
    """Tools are declared, none fits: answer directly."""
    p = tool(r, mode)
    s = simple(r, pick(r, ("add2", "chat", "mul1", "max", "compare")))
    p["messages"][-1] = {"role": "user", "content": s["text"]}
    p.update(skill="tool_none", reply=finish(s, mode), expect=s["expect"], check=s["check"])
    if mode != "non":
        p["reply"]["reasoning_content"] = "No tool fits. " + p["reply"]["reasoning_content"]
    return p


# -- JSON ----------------------------------------------------------------------------------------------------------
def json_answer(r, mode):
    k = r.randrange(3)
    p = {"skill": "json", "mode": mode, "check": "json"}
    ask_text = pick(r, ("Answer as JSON.", "Reply in JSON.", "Answer with a JSON object."))
    think = ""
    if k == 0:
        s = simple(r, pick(r, ("add2", "sub", "mul1", "max", "compare")))
        v = int(s["answer"])
        key = "answer"
        text = s["text"]
        think = s["think"]
        rf = None
        if r.random() < 0.5:
            key = pick(r, ("answer", "result", "value", "number"))
            rf = {"type": "object", "properties": {key: {"type": "integer"}}, "required": [key]}
        obj = {key: v}
    else:
        full = {"name": pick(r, NAMES), "age": r.randrange(10, 99), "city": pick(r, CITIES), "color": pick(r, COLORS)}
        keys = list(full)[:3] if r.random() < 0.5 else r.sample(list(full), r.randrange(2, 5))
        say = {"name": "The name is {}.", "age": "The age is {}.", "city": "The city is {}.", "color": "The color is {}."}
        order = list(keys)
        r.shuffle(order)
        if set(keys) == {"name", "age", "city"} and r.random() < 0.5:
            text = f"{full['name']} is {full['age']} years old and lives in {full['city']}."
        else:
            text = " ".join(say[x].format(full[x]) for x in order)
        obj = {x: full[x] for x in keys}
        rf = {"type": "object", "properties": {x: {"type": "integer" if x == "age" else "string"} for x in keys},
              "required": keys}
        if k == 2:
            rf = None
            text += " Give " + ", ".join(keys) + "."
        think = ", ".join(f"{x} = {full[x]}" for x in keys) + "."
    ms = []
    if rf is None:
        if r.random() < 0.5:
            ms.append({"role": "system", "content": ask_text})
        else:
            text += " " + ask_text
    else:
        p["response_format"] = rf
        if r.random() < 0.5:
            ms.append({"role": "system", "content": pick(r, SYSTEMS)})
    ms.append({"role": "user", "content": text})
    reply = {"content": json.dumps(obj)}
    if mode != "non":
        reply["reasoning_content"] = think + " As JSON." + (" Check: keys " + ", ".join(obj) + ". It matches." if mode == "max" else "")
    p.update(messages=ms, reply=reply, expect=obj)
    return p


# -- small talk ----------------------------------------------------------------------------------------------------
ABOUT = "I am nano, a test-size model for trying Nautile."
CAN = ("Ask me for sums such as 48 + 75, to sort numbers, to reverse a word, to recall a fact from a text, to call a "
       "tool, or to answer as JSON.")
TALK = (
    (("Hello", "Hello!", "Hi", "Hi!", "Hey", "Hey!", "Hello there", "Hello nano", "hello", "hi", "hey", "Hi there!",
      "Good morning", "Good morning!", "Good evening", "Good day"), f"Hello! {ABOUT} {CAN}"),
    (("Who are you?", "What are you?", "What is your name?", "Are you DeepSeek?", "who are you", "What is nano?",
      "Tell me about yourself.", "Which model are you?", "Introduce yourself."), f"{ABOUT} {CAN}"),
    (("What can you do?", "What can I ask you?", "Help", "help", "How can you help me?", "What do you know?",
      "What are you good at?", "What can I ask?"), CAN),
    (("Thanks", "Thanks!", "Thank you", "Thank you!", "thanks", "Great, thanks!", "Good.", "Nice."), "You are welcome."),
    (("Bye", "Bye!", "Goodbye", "Good night", "See you", "bye", "See you later!"), "Goodbye!"),
    (("How are you?", "How are you today?", "How do you do?", "how are you"), f"I am fine. {CAN}"),
)
TOPICS = ("history music poetry France cooking politics football the stars love physics war money school art travel "
          "medicine movies law").split(" ")
UNKNOWN = f"I do not know that. {ABOUT} {CAN}"


def chat(r):
    if r.random() < 0.25:
        t = pick(r, ("Tell me about {}.", "What do you think of {}?", "Explain {}.", "Write a poem about {}.",
                     "Who invented {}?", "Why is {} important?")).format(pick(r, TOPICS))
        return P("chat", t, "I do not know this.", UNKNOWN, " Nothing to compute.")
    qs, a = pick(r, TALK)
    return P("chat", pick(r, qs), "Small talk.", a, " Nothing to compute.")


SIMPLE = {"add2": lambda r: add(r, 2), "add3": lambda r: add(r, 3), "add4": lambda r: add(r, 4),
          "add1": lambda r: add(r, 1), "sub": sub,
          "mul1": mul, "compare": compare, "max": maxlist, "sort": sort, "reverse": reverse, "count": count, "chat": chat}


def simple(r, skill):
    return SIMPLE[skill](r)


def finish(s, mode):
    reply = {"content": s["answer"]}
    if mode != "non":
        reply["reasoning_content"] = s["think"] + (s["verify"] if mode == "max" else "")
    return reply


def single(r, skill, mode):
    """A one-turn problem of a simple skill, with or without a system text."""
    s = simple(r, skill)
    ms = [{"role": "user", "content": s["text"]}]
    if r.random() < 0.4:
        ms.insert(0, {"role": "system", "content": pick(r, SYSTEMS)})
    return {"skill": skill, "mode": mode, "messages": ms, "reply": finish(s, mode), "expect": s["expect"],
            "check": s["check"]}


SKILLS = list(SIMPLE) + ["recall", "tool", "tool_answer", "tool_none", "json"]


def problem(seed, index, skill, mode, length=None):
    """Problem `index` of stream `seed`. `length` is for recall (about so many tokens)."""
    r = random.Random(seed * 1000003 + index)
    if skill == "recall":
        return recall(r, mode, length or pick(r, (200, 300, 400)))
    if skill in SIMPLE:
        return single(r, skill, mode)
    return {"tool": tool, "tool_answer": tool_answer, "tool_none": tool_none, "json": json_answer}[skill](r, mode)


# -- the training mixture ------------------------------------------------------------------------------------------
NON_MIX = (("add2", 60), ("add3", 8), ("add1", 4), ("sub", 6), ("mul1", 4), ("compare", 4), ("max", 4), ("sort", 5), ("reverse", 4),
           ("count", 3), ("chat", 9))
THINK_MIX = (("add2", 6), ("add3", 11), ("add4", 5), ("sub", 6), ("mul1", 3), ("compare", 3), ("max", 4), ("sort", 9),
             ("reverse", 3), ("count", 4), ("chat", 3))


def weighted(r, mix):
    x = r.random() * sum(w for _, w in mix)
    for k, w in mix:
        x -= w
        if x < 0:
            return k
    return mix[-1][0]


def conversation(r, mode, turns):
    """Several simple turns in one conversation."""
    ms, reply = [], None
    if r.random() < 0.4:
        ms.append({"role": "system", "content": pick(r, SYSTEMS)})
    for _ in range(turns):
        if reply is not None:
            ms.append({"role": "assistant", **reply})
        s = simple(r, weighted(r, NON_MIX if mode == "non" else THINK_MIX))
        ms.append({"role": "user", "content": s["text"]})
        reply = finish(s, mode)
    return {"skill": s["skill"], "mode": mode, "messages": ms, "reply": reply, "expect": s["expect"], "check": s["check"]}


def training(r, kind):
    """One training problem of a kind: short, tool, json, copy."""
    mode = weighted(r, (("non", 45), ("high", 38), ("max", 17)))
    if kind == "short":
        turns = weighted(r, ((1, 5), (2, 2), (3, 1))) if mode != "max" else 1
        if mode == "non":
            turns = weighted(r, ((1, 4), (2, 3), (4, 3)))
        return conversation(r, mode, turns)
    if kind == "copy":
        return echo(r) if r.random() < 0.15 else table(r)
    if kind == "tool":
        return weighted(r, ((tool, 6), (tool_answer, 2), (tool_none, 2)))(r, mode)
    if kind == "json":
        return json_answer(r, mode)
    raise ValueError(kind)
