"""The DeepSeek-V4 chat format (preview profile): messages -> prompt text, and the assistant's side of it.

Messages are OpenAI-style dicts: role, content, and for assistants reasoning_content and tool_calls
([{"name", "arguments": {..}}]). Modes: non, high, max.
"""
import json

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
MAX_PREFIX = (
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, "
    "rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered "
    "alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n")
TOOLS_HEAD = """## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

"""
TOOLS_TAIL = "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n"
FORMAT_HEAD = "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"


def dumps(x):
    return json.dumps(x, ensure_ascii=False)


def tools_block(tools):
    return TOOLS_HEAD + "\n".join(dumps(t) for t in tools) + TOOLS_TAIL


def calls_block(calls):
    out = []
    for c in calls:
        ps = [f'<｜DSML｜parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">'
              f'{v if isinstance(v, str) else dumps(v)}</｜DSML｜parameter>' for k, v in c["arguments"].items()]
        out.append(f'<｜DSML｜invoke name="{c["name"]}">\n' + "\n".join(ps) + "\n</｜DSML｜invoke>")
    return "<｜DSML｜tool_calls>\n" + "\n".join(out) + "\n</｜DSML｜tool_calls>"


def reply(m, mode):
    """What the model itself writes for assistant message m, after the opener, EOS included."""
    s = ""
    if mode != "non":
        s += (m.get("reasoning_content") or "") + "</think>"
    s += m.get("content") or ""
    if m.get("tool_calls"):
        s += "\n\n" + calls_block(m["tool_calls"])
    return s + EOS


def render(messages, mode, tools=None, response_format=None):
    """-> [(text, is_reply)]: the whole conversation; a prompt when the last message is not an assistant's."""
    ms = [dict(m) for m in messages]
    if tools or response_format:
        if not ms or ms[0]["role"] != "system":
            ms.insert(0, {"role": "system", "content": ""})
        if tools:
            ms[0]["content"] += "\n\n" + tools_block(tools)
        if response_format:
            ms[0]["content"] += "\n\n" + FORMAT_HEAD + dumps(response_format)
    merged = []
    for m in ms:
        role, text = m["role"], m.get("content") or ""
        if role == "tool":
            role, text = "user", f"<tool_result>{text}</tool_result>"
        if role == "user" and merged and merged[-1]["role"] == "user":
            merged[-1]["content"] += "\n\n" + text
        else:
            merged.append({**m, "role": role, "content": text})
    thinking = mode != "non"
    last = max([i for i, m in enumerate(merged) if m["role"] == "user"], default=-1)
    out = [(BOS + (MAX_PREFIX if mode == "max" else ""), False)]
    for i, m in enumerate(merged):
        if m["role"] == "system":
            out.append((m["content"], False))
        elif m["role"] == "user":
            think = thinking and (bool(tools) or i >= last)
            if i + 1 == len(merged) or merged[i + 1]["role"] in ("assistant", "user"):
                out.append((USER + m["content"] + ASSISTANT + ("<think>" if think else "</think>"), False))
        else:
            keep = thinking and (bool(tools) or i > last)
            out.append((reply(m, mode if keep else "non"), True))
    return out
