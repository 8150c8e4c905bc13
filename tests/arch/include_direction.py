#!/usr/bin/env python3
"""Checks that each room includes only rooms on floors below its own (docs/design/README.md).

usage: include_direction.py SOURCE_DIR | --self-test
"""
import pathlib
import re
import sys

FLOORS = {
    "base": 0, "sys": 1, "tensor": 2, "kernels": 3, "checkpoint": 3, "cache": 4, "text": 4,
    "model": 5, "engine": 6, "plan": 7, "serve": 8, "cluster": 8, "tools": 9,
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def violations(files):
    """files: iterable of (room, path, text). Yields a line for each include that goes sideways or up."""
    for room, path, text in files:
        for target in INCLUDE.findall(text):
            head = target.split("/")[0]
            if head == "nautile" or "/" not in target:
                continue  # the public API, or a file of the same folder
            if head not in FLOORS:
                yield f"{path}: \"{target}\" is in no room"
            elif head != room and FLOORS[head] >= FLOORS[room]:
                yield f"{path}: {room} (floor {FLOORS[room]}) may not use {head} (floor {FLOORS[head]})"


def house(source):
    for top, room_of in (("src", lambda p: p.parts[0]), ("tools/nautile", lambda p: "tools")):
        root = pathlib.Path(source) / top
        for path in sorted(root.rglob("*")):
            if path.suffix in (".h", ".cc", ".cu", ".cuh"):
                yield room_of(path.relative_to(root)), path, path.read_text(encoding="utf-8")


def self_test():
    bad = list(violations([
        ("base", "a", '#include "sys/file.h"\n'),
        ("text", "b", '#include "cache/x.h"\n'),
        ("model", "c", '#include "cache/x.h"\n#include "nautile/status.h"\n#include "model/y.h"\n'),
        ("model", "d", '#include "vendor/x.h"\n'),
    ]))
    assert [line[0] for line in bad] == ["a", "b", "d"], bad


if sys.argv[1:] == ["--self-test"]:
    self_test()
elif len(sys.argv) == 2:
    seen = list(house(sys.argv[1]))
    assert seen, "no source file found"
    lines = list(violations(seen))
    print("\n".join(lines) or f"{len(seen)} files, every include goes down")
    sys.exit(1 if lines else 0)
else:
    sys.exit(__doc__)
