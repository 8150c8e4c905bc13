"""What the client tests share: the program, the key, a tool, and a call of it as the model would write it."""
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from serve_harness import Server  # noqa: E402

NAUTILE, NANO = (os.path.abspath(path) for path in sys.argv[1:3])
KEY = "client-key"
D = "｜DSML｜"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": PARAMETERS}}
CALL = f'\n\n<{D}tool_calls>\n<{D}invoke name="get_weather">\n<{D}parameter name="city" string="true">Rome</{D}parameter>\n</{D}invoke>\n</{D}tool_calls>'
os.environ.update(OPENAI_AGENTS_DISABLE_TRACING="1", LITELLM_LOCAL_MODEL_COST_MAP="True", LANGSMITH_TRACING="false", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def serving(*flags):
    return Server(NAUTILE, "--api-key", KEY, *flags)


def serving_nano(*flags):
    return Server(NAUTILE, "--api-key", KEY, *flags, backend="engine", model=NANO)
