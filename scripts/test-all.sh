#!/usr/bin/env bash
# Everything that `make test` leaves out because it takes longer or needs more than Debian's packages: sanitizers over the
# whole suite, fuzzers, kernels on emulated CPUs, load, soak and end-to-end tests; the Python oracles when NAUTILE_PYTHON
# names an interpreter that has tests/oracle/requirements.txt, the clients when NAUTILE_CLIENTS_PYTHON names one that has
# tests/clients/requirements.txt.
#
# Ends within 40 minutes on two cores when the compiler's cache is warm (38 when last run). What takes its time by choice, in seconds
# or counts, and may be set: SOAK_SECONDS (600), OVERLOAD_SECONDS (60), FUZZ_SECONDS (30 for each, two at a time),
# MALFORMED_REQUESTS (10000). The seconds of every step are printed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(nproc)}
fuzz_seconds=${FUZZ_SECONDS:-30}
overload_seconds=${OVERLOAD_SECONDS:-60}

names=() began=() # of the steps so far
step() {
  names+=("$1") began+=("$SECONDS")
  printf '\n== %s\n' "$1"
}
summary() {
  local code=$? i
  began+=("$SECONDS")
  printf '\n== seconds\n'
  for i in "${!names[@]}"; do printf '%6d  %s\n' $((began[i + 1] - began[i])) "${names[i]}"; done
  printf '%6d  in all\n' "$SECONDS"
  [ $code -eq 0 ] || printf 'FAILED in: %s\n' "${names[-1]:-the beginning}"
}
trap summary EXIT

step "address and undefined-behaviour sanitizers"
cmake --preset asan >/dev/null
cmake --build build/asan -j "$jobs"
ctest --test-dir build/asan --output-on-failure -j "$jobs"

step "thread sanitizer: pool, forward pass, prefix cache, grammars"
cmake --preset tsan >/dev/null
cmake --build build/tsan -j "$jobs" --target test_sys test_model test_cache test_engine test_text
build/tsan/src/sys/test_sys
build/tsan/src/cache/test_cache
# Without three that are arithmetic for their length and share nothing that the others do not.
build/tsan/src/engine/test_engine --test-case-exclude="*numerics*,a batch gives every request*,preemption: two long outputs*"
build/tsan/src/text/test_text --test-case="grammar limits: threads*"
build/tsan/src/model/test_model --test-case="*threads*,*batch*"

step "kernels on other CPUs, emulated: AVX2 without AVX-512, and a plain x86-64"
dpkg-query -W -f='${Status}' qemu-user 2>/dev/null | grep -q 'install ok installed' || {
  echo "installing qemu-user"; apt-get install -y -q --no-install-recommends qemu-user
}
scripts/test-qemu.sh build/release

step "prefix cache: 200 kills while it writes to disk"
build/release/tests/cache_kill/cache_kill 200

step "engine under load"
for part in "mixed 60" "agent 20" "overload $overload_seconds" "sampled 4000"; do
  # shellcheck disable=SC2086
  build/release/tests/engine_load/engine_load models/nano $part
done

step "server: soak of ${SOAK_SECONDS:-600} s, half of it with ten times the capacity offered"
cmake --build build/release -j "$jobs" --target nautile serve_load
python3 tests/load/soak.py build/release --seconds "${SOAK_SECONDS:-600}"

step "server: ${MALFORMED_REQUESTS:-10000} malformed requests, address and undefined-behaviour sanitizers"
python3 tests/fuzz/malformed.py build/asan/nautile --requests "${MALFORMED_REQUESTS:-10000}"

step "server: thread sanitizer"
cmake --build build/tsan -j "$jobs" --target nautile
TSAN_OPTIONS=exitcode=66 python3 tests/e2e/serve_transport.py build/tsan/nautile
TSAN_OPTIONS=exitcode=66 python3 tests/e2e/serve_api.py build/tsan/nautile
TSAN_OPTIONS=exitcode=66 python3 tests/e2e/serve_nano.py build/tsan/nautile models/nano
TSAN_OPTIONS=exitcode=66 python3 tests/e2e/serve_loading.py build/tsan/nautile models/nano || [ $? -eq 77 ] # 77: no leases on files

step "fuzzers, $fuzz_seconds s each, two at a time"
dpkg-query -W -f='${Status}' clang 2>/dev/null | grep -q 'install ok installed' || {
  echo "installing clang"; apt-get install -y -q --no-install-recommends clang libclang-rt-14-dev
}
cmake --preset fuzz >/dev/null
cmake --build build/fuzz -j "$jobs" --target fuzz_safetensors fuzz_config_json fuzz_tokenizer_json fuzz_output_parser fuzz_disk_file fuzz_grammar fuzz_request fuzz_repacked_header
fuzz() {
  local name=$1 seeds=()
  mkdir -p "build/fuzz/corpus/$name"
  [ -d "tests/fuzz/seeds/$name" ] && seeds=("tests/fuzz/seeds/$name")
  if "build/fuzz/tests/fuzz/fuzz_$name" -max_total_time="$fuzz_seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
    "build/fuzz/corpus/$name" "${seeds[@]}" >"build/fuzz/$name.log" 2>&1; then
    echo "fuzz_$name: $(grep -o 'number_of_executed_units: .*' "build/fuzz/$name.log")"
  else
    echo "fuzz_$name FAILED"
    tail -n 60 "build/fuzz/$name.log"
    return 1
  fi
}
fuzzers=(safetensors config_json tokenizer_json output_parser disk_file grammar request repacked_header)
for ((i = 0; i < ${#fuzzers[@]}; i += 2)); do
  fuzz "${fuzzers[i]}" &
  first=$!
  fuzz "${fuzzers[i + 1]}" || { wait "$first" || true; exit 1; }
  wait "$first"
done

step "oracles"
if [ -n "${NAUTILE_PYTHON:-}" ]; then
  program=$PWD/build/release/nautile
  (cd tests/oracle && "$NAUTILE_PYTHON" compare.py "$program")
  "$NAUTILE_PYTHON" tests/oracle/nano_trainer.py "$program"
  mkdir -p build/oracle
  xz -dc tests/golden/text/v4_tokenizer.json.xz >build/oracle/tokenizer.json
  "$NAUTILE_PYTHON" tests/oracle/tokenizer_oracle.py compare build/oracle/tokenizer.json "$program"
  if "$NAUTILE_PYTHON" -c 'import jsonschema, llguidance' 2>/dev/null; then
    "$NAUTILE_PYTHON" tests/oracle/grammar_oracle.py build/release/tests/grammar/grammar_probe build/oracle/tokenizer.json
  else
    echo "grammar_oracle.py skipped: NAUTILE_PYTHON has no jsonschema or llguidance"
  fi
else
  echo "skipped: set NAUTILE_PYTHON to a Python with tests/oracle/requirements.txt"
fi

step "clients"
if [ -n "${NAUTILE_CLIENTS_PYTHON:-}" ]; then
  "$NAUTILE_CLIENTS_PYTHON" tests/clients/clients.py build/release/nautile models/nano
else
  echo "skipped: set NAUTILE_CLIENTS_PYTHON to a Python with tests/clients/requirements.txt"
fi

step "end to end"
python3 tests/e2e/serve_transport.py build/asan/nautile
python3 tests/e2e/serve_api.py build/asan/nautile
python3 tests/e2e/serve_nano.py build/asan/nautile models/nano
python3 tests/e2e/serve_agent.py build/release/nautile models/nano
python3 tests/e2e/serve_calls.py build/release/nautile models/nano
python3 tests/e2e/serve_loading.py build/asan/nautile models/nano || [ $? -eq 77 ] # 77: no leases on files
"${NAUTILE_CLIENTS_PYTHON:-${NAUTILE_PYTHON:-python3}}" tests/e2e/serve_schemas.py build/release/nautile models/nano
python3 tests/e2e/chat_cli.py build/asan/nautile models/nano
python3 tests/e2e/readme_examples.py build/release/nautile || [ $? -eq 77 ] # 77: no curl, no port
python3 tests/e2e/serve_proxies.py build/release/nautile || [ $? -eq 77 ] # 77: neither nginx nor Caddy here
python3 tests/e2e/serve_page.py build/release/nautile models/nano || [ $? -eq 77 ] # 77: no chromium here
python3 tests/e2e/plan_page.py build/release/nautile || [ $? -eq 77 ] # 77: no chromium here
