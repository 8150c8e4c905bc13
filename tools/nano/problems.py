"""Fresh problems for measuring a program that runs nano, as JSON lines.

    python problems.py --skill add3 --n 500 --seed 1 --out add3.jsonl [--mode high] [--length 4000]
Seeds are offset so that no problem stream of the training is ever used. Without --mode every mode gets n problems.
"""
import argparse
import json

import data


def public(p):
    q = {k: p[k] for k in ("messages", "tools", "response_format", "mode", "skill", "expect", "check") if k in p}
    if "response_format" in q:  # a request names the schema as OpenAI's API does
        q["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": q["response_format"]}}
    if "tools" in q:
        q["tools"] = [{"type": "function", "function": t} for t in q["tools"]]
    for m in q["messages"]:
        for i, call in enumerate(m.get("tool_calls", [])):
            if "function" not in call:
                m["tool_calls"][i] = {"id": f"call_{i}", "type": "function", "function": {
                    "name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}}
        if m["role"] == "tool":
            m.setdefault("tool_call_id", "call_0")
    return q


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--skill", required=True, choices=data.SKILLS)
    a.add_argument("--n", type=int, default=500)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--mode", choices=data.MODES)
    a.add_argument("--length", type=int, help="recall: about so many tokens of text")
    a.add_argument("--out", required=True)
    a = a.parse_args()
    with open(a.out, "w", encoding="utf-8") as f:
        for mode in ([a.mode] if a.mode else data.MODES):
            for i in range(a.n):
                p = data.problem(data.EVAL_SEED + a.seed, i, a.skill, mode, a.length)
                f.write(json.dumps(public(p), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
