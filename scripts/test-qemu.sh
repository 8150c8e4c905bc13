#!/usr/bin/env bash
# The kernels on CPUs that this machine is not, by qemu-user: as a Haswell the best level is avx2, as qemu64 (no AVX) it is ref,
# and the program must choose it and live. scripts/test-qemu.sh [BUILD_FOLDER]; each run has a limit, they take minutes at most.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}

as() {
  local cpu=$1 limit=$2
  shift 2
  # qemu names what it cannot emulate of the CPU; that is no fault of ours.
  timeout "$limit" qemu-x86_64 -cpu "$cpu" "$@" 2> >(grep -v 'warning: TCG' >&2)
}

echo "Haswell: kernel tests"
as Haswell 600 "$build/src/kernels/test_kernels"
echo "qemu64: kernel tests"
as qemu64 120 "$build/src/kernels/test_kernels"
echo "qemu64: the program picks its kernels, and says what it lacks for others"
answer=$(as qemu64 120 "$build/nautile" run models/nano --prompt "What is 48 + 75?")
echo "$answer"
grep -q 123 <<<"$answer"
said=$(as qemu64 60 "$build/nautile" run models/nano --isa avx2 --prompt hi 2>&1 || true)
echo "$said"
grep -q 'cannot run the avx2 kernels' <<<"$said"
