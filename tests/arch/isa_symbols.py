#!/usr/bin/env python3
"""Checks that code for one kind of CPU stays out of the reach of the others.

usage: isa_symbols.py PROGRAM OBJECT... | --self-test

OBJECTs are the files that are compiled with the flags of an instruction set. None may define a weak function: of an inline
function or template that several files define, the linker keeps one copy, and it could be the one another CPU cannot run.
In PROGRAM, vector registers and instructions of AVX and later may appear only in functions of those namespaces, and in the
probes that ask the CPU first.
"""
import re
import subprocess
import sys

OWN = re.compile(r"7nautile(?:4avx2|6avx512|3amx)|7nautile12_GLOBAL__N_1\d+(?:chain_(?:int8|bf16|fma|unit)|sum_avx)")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:")
NEW = re.compile(r"%[yzt]mm\d|%k[0-7]\b|\tv[a-z0-9]+\s")


def weak_functions(listing):
    """listing: what `nm --defined-only` prints."""
    return [line.split()[-1] for line in listing.splitlines() if len(line.split()) == 3 and line.split()[1] == "W"]


def strays(disassembly):
    """The functions outside the kernels' namespaces that hold an instruction of AVX or later."""
    function, found = "", []
    for line in disassembly:
        match = FUNCTION.match(line)
        if match:
            function = match.group(1)
        elif NEW.search(line) and not OWN.search(function) and function not in found:
            found.append(function)
    return found


def self_test():
    assert weak_functions("0000 T _Zone\n0000 W _Ztwo\n0000 V DW.ref\n") == ["_Ztwo"]
    assert strays(["00 <_ZN7nautile4avx23dotE>:", " 1:\tvaddps %ymm0,%ymm1,%ymm2"]) == []
    assert strays(["00 <_ZN7nautile3dotE>:", " 1:\tvaddps %xmm0,%xmm1,%xmm2", " 2:\tmov %eax,%ebx"]) == ["_ZN7nautile3dotE"]
    assert strays(["00 <main>:", " 1:\tverr %ax", " 2:\taddps %xmm0,%xmm1"]) == ["main"]
    print("the check finds what it should")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    program, objects = sys.argv[1], sys.argv[2:]
    problems = []
    for path in objects:
        listing = subprocess.run(["nm", "--defined-only", path], check=True, capture_output=True, text=True).stdout
        problems += [f"{path}: weak function {name}: give it internal linkage, or always_inline" for name in weak_functions(listing)]
    with subprocess.Popen(["objdump", "-d", "--no-show-raw-insn", program], stdout=subprocess.PIPE, text=True) as dump:
        problems += [f"{program}: {name} holds AVX code" for name in strays(dump.stdout)]
    print("\n".join(problems) or f"{len(objects)} objects and {program}: no code of one instruction set in reach of another")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
