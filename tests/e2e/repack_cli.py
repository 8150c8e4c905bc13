#!/usr/bin/env python3
"""`nautile repack` and --repacked end to end on nano: the file is made, mapped, checked, refused and replaced.

usage: repack_cli.py NAUTILE MODEL
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

NAUTILE, MODEL = sys.argv[1:3]


def nautile(*args, code=0):
    done = subprocess.run([NAUTILE, *map(str, args)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout, done.stderr


with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    tokens = folder / "ids.txt"
    tokens.write_text(" ".join(str(i * 37 % 500) for i in range(300)))

    def logits(*flags, model=MODEL):
        out = folder / "logits.npy"
        text, said = nautile("score", model, "--tokens", tokens, "--logits", out, *flags)
        return out.read_bytes(), text, said

    plain = logits()[0]
    said = logits("--json")[1]
    tiles = "avx" in said or "amx" in said  # this machine has kernels that take tiles
    file = folder / "nano.tiles"
    first, _, said = logits("--repacked", file)
    assert first == plain
    if not tiles:
        assert "no repacked file is used" in said, said
        sys.exit(0)
    assert f"made {file}" in said, said
    for flags in ([], ["--compare-repacked"], ["--threads", "3"]):
        again, _, said = logits("--repacked", file, *flags)
        assert again == plain and said == "", said
    reference = logits("--numerics", "reference")[0]
    assert logits("--numerics", "reference", "--repacked", file)[0] == reference
    for slow in (["--isa", "ref"], ["--numerics", "exact"]):
        got, _, said = logits(*slow, "--repacked", file)
        assert got == logits(*slow)[0] and "no repacked file is used" in said, said

    out = json.loads(nautile("repack", MODEL, "--out", file, "--json", "--quiet")[0])
    assert out["bytes"] == file.stat().st_size and not out["checked"], out
    assert "to the bit" in nautile("repack", MODEL, "--out", file, "--check")[0]
    bench = json.loads(nautile("bench", MODEL, "--repacked", file, "--prefill", 0, "--decode", 1, "--repeats", 1, "--json")[0])
    assert bench["load"]["mapped"] and bench["load"]["parts"][0]["what"] == "checking tiles", bench["load"]
    assert bench["rows"][0]["peak_memory_bytes"] > bench["rows"][0]["state_bytes"] > 0, bench["rows"]

    good = file.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 4
    for content, word in ((bytes(bad), "checksum is wrong"), (good[:-5000], "its header calls for"), (b"a letter\n", "no repacked file"),
                          (b"", "no repacked file")):
        file.write_bytes(content)
        got, _, said = logits("--repacked", file)
        assert got == plain and word in said and "packed instead" in said, (word, said)
        assert file.read_bytes() == content
        assert word in nautile("repack", MODEL, "--out", file, "--check", code=1)[1]
    # Made again over what is broken, never over something else.
    file.write_bytes(b"a letter\n")
    assert "another kind of file" in nautile("repack", MODEL, "--out", file, code=2)[1]
    file.write_bytes(bytes(bad))
    nautile("repack", MODEL, "--out", file)
    assert file.read_bytes() == good

    # auto: in the model's directory, where a copy has other times.
    copy = folder / "copy"
    shutil.copytree(MODEL, copy)
    assert f"made {copy}/repacked.nautile" in logits("--repacked", "auto", model=copy)[2]
    assert logits("--repacked", "auto", model=copy)[2] == ""
    got, _, said = logits("--repacked", file, model=copy)
    assert got == plain, said
    for shard in copy.glob("*.safetensors"):
        shard.touch()
    got, _, said = logits("--repacked", "auto", model=copy)
    assert got == plain and "other times" in said, said
    nautile("repack", copy)
    assert logits("--repacked", "auto", model=copy)[2] == ""
    # No place to write it: said, and the model runs.
    got, _, said = logits("--repacked", "/proc/nautile.tiles")
    assert got == plain and "no repacked file was made" in said, said
    assert "no files" in nautile("bench", "--shape", "v4-flash", "--repacked", file, code=2)[1]
