"""Writes the committed goldens: tests/golden/logits/{tiny,tiny_csa}.

    python make_golden.py            writes them (refuses if transformers disagrees)
    python make_golden.py --check    regenerates in a temporary folder and compares

Each folder is a complete checkpoint plus
  tokens.json            the prompt, a JSON list of ids
  logits_exact.npy       float32 [T, V], exact numerics, computed in float64
  logits_reference.npy   float32 [T, V], the official roundings, float64 accumulators
  logits_mtp_exact.npy   float32 [T-1, V], the MTP block (tiny_csa only): row p joins the
                         main streams at p with token p+1 and predicts token p+2
  golden.json            what to expect of a float32 program (see README.md)
"""

import argparse
import json
import os
import shutil
import sys
import tempfile

import numpy as np

import configs
import make_checkpoint
from compare import EXACT_BOUND, NOISE_FACTOR, SHARP_BOUND, SHARP_ROWS, is_exact, oracle, oracle_mtp, row_errors

NAMES = ("tiny", "tiny_csa")
TARGET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "logits")


def write(name, folder):
    import transformers_logits

    cfg, seed, tokens = configs.config(name)
    make_checkpoint.write(cfg, seed, folder)
    ids = make_checkpoint.prompt(cfg, seed, tokens)
    with open(os.path.join(folder, "tokens.json"), "w") as out:
        json.dump(ids.tolist(), out)
        out.write("\n")
    exact, model = oracle(folder, ids, "exact", "float64")
    hf = transformers_logits.logits(transformers_logits.load(folder), ids)
    if not is_exact(row_errors(hf, exact), (hf.argmax(axis=1) == exact.argmax(axis=1)).mean()):
        sys.exit(f"{name}: transformers and reference_model.py disagree; no golden written")
    if min(model.margin.values()) < 2e-5:
        sys.exit(f"{name}: a selection is too close to a tie ({model.margin}); choose another seed")
    r64, _ = oracle(folder, ids, "reference", "float64")
    r32, _ = oracle(folder, ids, "reference", "float32")
    noise = row_errors(r32, r64)
    np.save(os.path.join(folder, "logits_exact.npy"), exact)
    np.save(os.path.join(folder, "logits_reference.npy"), r64)
    if cfg["num_nextn_predict_layers"]:
        mtp, hf = oracle_mtp(folder, ids), transformers_logits.mtp_logits(folder, ids)
        if not is_exact(row_errors(hf, mtp), (hf.argmax(axis=1) == mtp.argmax(axis=1)).mean()):
            sys.exit(f"{name}: the MTP blocks disagree; no golden written")
        np.save(os.path.join(folder, "logits_mtp_exact.npy"), mtp)
    expect = {"exact_row_error_max": EXACT_BOUND}
    if cfg["num_hidden_layers"] == 1:  # sharp: this share of rows lies below this error
        expect |= {"reference_row_error_sharp": SHARP_BOUND, "reference_rows_sharp_min": SHARP_ROWS}
    else:  # twice what float32 sums alone cause
        expect["reference_row_error_median_max"] = float(f"{NOISE_FACTOR * np.median(noise):.3g}")
    with open(os.path.join(folder, "golden.json"), "w") as out:
        json.dump(expect, out, indent=2)
        out.write("\n")


def check(name):
    """The committed files against fresh ones: bytes for the checkpoint, values for the logits."""
    wrong = []
    with tempfile.TemporaryDirectory() as fresh:
        write(name, fresh)
        extra = set(os.listdir(os.path.join(TARGET, name))) - set(os.listdir(fresh))
        wrong += [f"{name}/{file}: not made by this script" for file in sorted(extra)]
        for file in sorted(os.listdir(fresh)):
            a, b = os.path.join(fresh, file), os.path.join(TARGET, name, file)
            if not os.path.exists(b):
                wrong.append(f"{name}/{file}: missing")
            elif file == "golden.json":
                continue
            elif file == "logits_reference.npy":  # numpy builds may order sums differently
                if np.median(row_errors(np.load(a), np.load(b))) > 0.05:
                    wrong.append(f"{name}/{file}: differs")
            elif file.endswith(".npy"):
                if row_errors(np.load(a), np.load(b)).max() > 1e-6:
                    wrong.append(f"{name}/{file}: differs")
            elif open(a, "rb").read() != open(b, "rb").read():
                wrong.append(f"{name}/{file}: differs")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        wrong = [line for name in NAMES for line in check(name)]
        print("\n".join(wrong) or "goldens are what the scripts make")
        sys.exit(1 if wrong else 0)
    for name in NAMES:
        shutil.rmtree(os.path.join(TARGET, name), ignore_errors=True)
        write(name, os.path.join(TARGET, name))
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
