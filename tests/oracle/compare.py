"""Compares the `nautile` program with the independent forward passes.

    python compare.py PATH/TO/nautile [--configs NAME ...] [--no-transformers] [--keep FOLDER]
    python compare.py --oracles-only          compares the oracles with each other

For each config a random checkpoint is written, scored by

    nautile score FOLDER --tokens FILE --logits OUT.npy --numerics exact|reference [--chunk N]

and compared row by row. The error of a row is max|a - b| / max|b| over the vocabulary.

  exact       every row against reference_model.py (float64) and transformers
              (float32): error below 1e-4 and the same argmax.
  chunks,     logits of any chunking and of every prompt prefix must equal the
  prefixes    one-pass rows bit by bit.
  reference   against reference_model.py with the official roundings. One-layer
              configs: at least 95% of rows within 1e-3. Deeper ones: rounding
              flips amplify each other, so the median error may be at most twice
              that of reference_model.py itself in float32 (the noise floor).

Exit code 1 when any bound is broken.
"""

import argparse
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402

import configs  # noqa: E402
import make_checkpoint  # noqa: E402
from reference_model import Reference  # noqa: E402

EXACT_BOUND = 1e-4
SHARP_BOUND, SHARP_ROWS = 1e-3, 0.95
NOISE_FACTOR = 2.0
PREFIXES = (1, 2, 3, 4, 5, 8, 31, 32, 33, 127, 128, 129, 255, 256, 257)
CHUNKS = (1, 7, 128)


def row_errors(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.abs(a - b).max(axis=1) / np.abs(b).max(axis=1)


class Table:
    """Prints one line per comparison and remembers failures."""

    def __init__(self):
        self.failed = []
        print(f"{'config':9} {'what':36} {'rows':>5} {'median':>9} {'max':>9} {'argmax':>7}  verdict")

    def line(self, config, what, a, b, ok):
        """ok(errors, argmax agreement) -> bool."""
        if a.shape != b.shape or not np.isfinite(a).all():
            self.fail(config, what, f"shape {a.shape} against {b.shape}, finite {np.isfinite(a).all()}")
            return
        errors = row_errors(a, b)
        same = float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
        good = ok(errors, same)
        verdict = "ok" if good else f"FAILED (worst row {int(errors.argmax())})"
        print(f"{config:9} {what:36} {len(a):5} {np.median(errors):9.2e} {errors.max():9.2e} {same:7.1%}  {verdict}")
        if not good:
            self.failed.append(f"{config}: {what}")

    def note(self, config, what, text, good):
        print(f"{config:9} {what:36} {text}  {'ok' if good else 'FAILED'}")
        if not good:
            self.failed.append(f"{config}: {what}")

    def fail(self, config, what, text):
        self.note(config, what, text, False)


def is_exact(errors, same):
    return errors.max() < EXACT_BOUND and same == 1.0


def oracle(folder, ids, numerics, dtype):
    model = Reference(folder, numerics, dtype)
    return model.logits(model.streams(ids)).astype(np.float32), model


def oracle_mtp(folder, ids, numerics="exact"):
    model = Reference(folder, numerics, "float64")
    return model.mtp_logits(model.streams(ids), ids).astype(np.float32)


def score(binary, folder, ids, numerics, chunk=None):
    """Runs the program; returns its logits."""
    with tempfile.TemporaryDirectory() as work:
        tokens, out = os.path.join(work, "tokens.txt"), os.path.join(work, "logits.npy")
        with open(tokens, "w") as f:
            f.write(" ".join(str(i) for i in ids) + "\n")
        command = [binary, "score", folder, "--tokens", tokens, "--logits", out, "--numerics", numerics]
        if chunk:
            command += ["--chunk", str(chunk)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\nexit {run.returncode}\n{run.stdout}{run.stderr}")
        return np.load(out)


def check_oracles(table, name, folder, ids, exact64, model, hf):
    exact32, _ = oracle(folder, ids, "exact", "float32")
    table.line(name, "exact: oracle f32 / oracle f64", exact32, exact64, is_exact)
    closest = min(model.margin.values())
    table.note(name, "exact: closest selection", f"{closest:.1e} of the score range", closest > 1e-5)
    if hf is not None:
        table.line(name, "exact: transformers / oracle f64", hf, exact64, is_exact)


def check_program(table, name, binary, folder, ids, exact64, hf):
    got = score(binary, folder, ids, "exact")
    table.line(name, "exact: nautile / oracle f64", got, exact64, is_exact)
    if hf is not None:
        table.line(name, "exact: nautile / transformers", got, hf, is_exact)
    for chunk in CHUNKS:
        again = score(binary, folder, ids, "exact", chunk)
        same = again.shape == got.shape and np.array_equal(again, got)
        table.note(name, f"exact: --chunk {chunk}, bit by bit", f"{'equal' if same else 'differs'}", same)
    wrong = [n for n in PREFIXES if n < len(ids) and not np.array_equal(score(binary, folder, ids[:n], "exact"), got[:n])]
    table.note(name, "exact: prefixes, bit by bit", f"differs at {wrong}" if wrong else "equal", not wrong)


def check_reference(table, name, binary, folder, ids, layers):
    r64, _ = oracle(folder, ids, "reference", "float64")
    r32, _ = oracle(folder, ids, "reference", "float32")
    floor = np.median(row_errors(r32, r64))

    def ok(errors, same):
        if layers == 1:
            return (errors < SHARP_BOUND).mean() >= SHARP_ROWS
        return np.median(errors) <= NOISE_FACTOR * floor

    if layers == 1:
        table.line(name, "reference: oracle f32 / oracle f64", r32, r64, ok)
    else:
        print(f"{name:9} {'reference: noise floor (median)':36} {floor:.2e}")
    if binary:
        table.line(name, "reference: nautile / oracle f64", score(binary, folder, ids, "reference"), r64, ok)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", help="the built nautile program")
    parser.add_argument("--configs", nargs="+", choices=configs.NAMES, default=configs.NAMES)
    parser.add_argument("--no-transformers", action="store_true", help="compare with reference_model.py only")
    parser.add_argument("--no-reference", action="store_true", help="exact numerics only")
    parser.add_argument("--oracles-only", action="store_true", help="no program: the oracles against each other")
    parser.add_argument("--keep", help="write the checkpoints here and keep them")
    args = parser.parse_args()
    if not args.binary and not args.oracles_only:
        parser.error("name the nautile program, or --oracles-only")
    binary = None if args.oracles_only else os.path.abspath(args.binary)
    if not args.no_transformers:
        import torch

        import transformers_logits

        torch.set_num_threads(1)
    table = Table()
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.configs:
            cfg, seed, tokens = configs.config(name)
            folder = os.path.join(args.keep or temporary, name)
            make_checkpoint.write(cfg, seed, folder)
            ids = make_checkpoint.prompt(cfg, seed, tokens)
            exact64, model = oracle(folder, ids, "exact", "float64")
            hf = None
            if not args.no_transformers:
                hf = transformers_logits.logits(transformers_logits.load(folder), ids)
            check_oracles(table, name, folder, ids, exact64, model, hf)
            if hf is not None and cfg["num_nextn_predict_layers"]:
                mtp = transformers_logits.mtp_logits(folder, ids)
                table.line(name, "exact: MTP transformers / oracle f64", mtp, oracle_mtp(folder, ids), is_exact)
            try:
                if binary:
                    check_program(table, name, binary, folder, ids, exact64, hf)
                if not args.no_reference:
                    check_reference(table, name, binary, folder, ids, cfg["num_hidden_layers"])
            except (RuntimeError, OSError) as error:
                table.fail(name, "nautile score", str(error).strip())
    if table.failed:
        print(f"{len(table.failed)} comparison(s) failed:", *table.failed, sep="\n  ")
        sys.exit(1)
    print("all comparisons within bounds")


if __name__ == "__main__":
    main()
