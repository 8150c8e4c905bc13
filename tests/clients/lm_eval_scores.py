"""lm-eval's local-completions at nano: a multiple-choice task and a generated one, made here from sums.

The oracle is the program itself, without a server: `nautile tokenize` for the tokens and `nautile score` for the logits. The
scores must be the same numbers, whichever tokenizer lm-eval uses (its own copy from the model's folder, or the server's)
and however many requests it sends at once.
"""
import json
import os
import pathlib
import random
import subprocess
import tempfile

from serve_harness import check
from setting import KEY, NANO, NAUTILE, serving_nano

CHOICE = """task: nautile_sums
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
target_delimiter: ""
metric_list: [{metric: acc}]
"""
GENERATE = """task: nautile_generated
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{choices[label]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 16, do_sample: false}
metric_list: [{metric: exact_match}]
"""


def documents(count):
    draw = random.Random(7)
    for _ in range(count):
        a, b = draw.randint(10, 99), draw.randint(10, 99)
        choices = [str(a + b + delta) for delta in (0, 1, -1, 10)]
        draw.shuffle(choices)
        yield {"prompt": f"<｜User｜>What is {a} + {b}?<｜Assistant｜></think>", "choices": choices, "label": choices.index(str(a + b))}


def tokens(texts):
    done = subprocess.run([NAUTILE, "tokenize", NANO, "--specials", "--jsonl"], input="".join(json.dumps(t) + "\n" for t in texts), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def scores(ids, home):
    """Log-probability of each token given those before it, and whether it was the likeliest."""
    import numpy
    (home / "ids.json").write_text(json.dumps(ids))
    subprocess.run([NAUTILE, "score", NANO, "--tokens", home / "ids.json", "--logits", home / "logits.npy"], capture_output=True, check=True)
    logits = numpy.load(home / "logits.npy").astype(numpy.float64)
    peak = logits.max(axis=1, keepdims=True)
    logs = logits - peak - numpy.log(numpy.exp(logits - peak).sum(axis=1, keepdims=True))
    return [(logs[i, ids[i + 1]], logits[i].argmax() == ids[i + 1]) for i in range(len(ids) - 1)]


def lm_eval_scores(_):
    import lm_eval
    from lm_eval.tasks import TaskManager
    import logging
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    os.environ.update(HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    docs = list(documents(20))
    with tempfile.TemporaryDirectory() as folder, serving_nano() as server:
        home = pathlib.Path(folder)
        os.environ.update(OPENAI_API_KEY="client-key", HF_DATASETS_CACHE=str(home / "cache"))
        (home / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        for name, text in (("choice", CHOICE), ("generate", GENERATE)):
            (home / f"{name}.yaml").write_text(text.replace("DATA", json.dumps(str(home / "docs.jsonl"))))

        # What the program says without a server, of the same tokens: lm-eval sends ids, and nano's tokenizer adds no BOS.
        expected = []
        for doc in docs[:6]:
            context, *whole = tokens([doc["prompt"]] + [doc["prompt"] + choice for choice in doc["choices"]])
            for ids in whole:
                made = scores(ids, home)[len(context) - 1:]
                expected.append((sum(log for log, _ in made), all(best for _, best in made)))

        base = f"model=nautile,base_url=http://127.0.0.1:{server.port}/v1/completions,max_length=4096"
        ways = (f"tokenizer={NANO},tokenizer_backend=huggingface,num_concurrent=1", f"tokenizer={NANO},tokenizer_backend=huggingface,num_concurrent=8",
                "tokenizer_backend=remote,num_concurrent=4,auth_token=client-key", f"tokenizer={NANO},tokenizer_backend=huggingface,batch_size=8")
        # Before lm-eval: a prompt whose next token ends the turn. The one sampled token must have its entry, since lm-eval takes
        # the last entry away as the sampled one.
        ended = tokens([docs[0]["prompt"] + docs[0]["choices"][docs[0]["label"]]])[0]
        asked = {"model": "nautile", "prompt": ended, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        answer = server.post("/v1/completions", asked, {"authorization": "Bearer " + KEY}).json()
        check(answer["choices"][0]["finish_reason"] == "stop" and len(answer["choices"][0]["logprobs"]["token_logprobs"]) == len(ended) + 1, f"{answer}")
        first = None
        for way in ways:
            made = lm_eval.simple_evaluate(model="local-completions", model_args=f"{base},{way}", tasks=["nautile_sums", "nautile_generated"], task_manager=TaskManager(include_path=folder, include_defaults=False),
                                           log_samples=True, bootstrap_iters=0)
            samples = sorted(made["samples"]["nautile_sums"], key=lambda sample: sample["doc_id"])
            found = [(float(log), bool(best)) for sample in samples for log, best in sample["filtered_resps"]]
            for (log, best), (wanted, wanted_best) in zip(found, expected):
                check(abs(log - wanted) < 1e-4 * max(1, abs(wanted)) and best == wanted_best, f"{way}: {log} {best} instead of {wanted} {wanted_best}")
            first = first or found
            check(found == first, f"{way}: other scores than the first way")
            check(made["results"]["nautile_sums"]["acc,none"] >= 0.95, f"{way}: {made['results']}")
            check(made["results"]["nautile_generated"]["exact_match,none"] >= 0.95, f"{way}: {made['results']}")
        check(server.process.poll() is None, "alive")


TESTS = (lm_eval_scores,)
