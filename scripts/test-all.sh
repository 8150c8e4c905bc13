#!/usr/bin/env bash
# Everything that `make test` leaves out because it takes longer or needs more than Debian's packages: sanitizers over the
# whole suite, each fuzzer for FUZZ_SECONDS (default 60), the Python oracles when NAUTILE_PYTHON names an interpreter that
# has tests/oracle/requirements.txt, and the end-to-end tests.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(nproc)}
fuzz_seconds=${FUZZ_SECONDS:-60}

step() { printf '\n== %s\n' "$1"; }

step "address and undefined-behaviour sanitizers"
cmake --preset asan >/dev/null
cmake --build build/asan -j "$jobs"
ctest --test-dir build/asan --output-on-failure -j "$jobs"

step "thread sanitizer: pool, forward pass, prefix cache, grammars"
cmake --preset tsan >/dev/null
cmake --build build/tsan -j "$jobs" --target test_sys test_model test_cache test_engine test_text
build/tsan/src/sys/test_sys
build/tsan/src/cache/test_cache
build/tsan/src/engine/test_engine --test-case-exclude="*numerics*"
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
for part in "mixed 300" "agent 20" "overload ${OVERLOAD_SECONDS:-300}" "sampled 20000"; do
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

step "fuzzers, $fuzz_seconds s each"
dpkg-query -W -f='${Status}' clang 2>/dev/null | grep -q 'install ok installed' || {
  echo "installing clang"; apt-get install -y -q --no-install-recommends clang libclang-rt-14-dev
}
cmake --preset fuzz >/dev/null
cmake --build build/fuzz -j "$jobs" --target fuzz_safetensors fuzz_config_json fuzz_tokenizer_json fuzz_output_parser fuzz_disk_file fuzz_grammar fuzz_request fuzz_repacked_header
for name in safetensors config_json tokenizer_json output_parser disk_file grammar request repacked_header; do
  mkdir -p "build/fuzz/corpus/$name"
  seeds=()
  [ -d "tests/fuzz/seeds/$name" ] && seeds=("tests/fuzz/seeds/$name")
  echo "fuzz_$name"
  "build/fuzz/tests/fuzz/fuzz_$name" -max_total_time="$fuzz_seconds" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
    "build/fuzz/corpus/$name" "${seeds[@]}" 2>&1 | tail -n 8
done

step "oracles"
if [ -n "${NAUTILE_PYTHON:-}" ]; then
  program=$PWD/build/release/nautile
  (cd tests/oracle && "$NAUTILE_PYTHON" compare.py "$program")
  "$NAUTILE_PYTHON" tests/oracle/nano_trainer.py "$program"
  mkdir -p build/oracle
  xz -dc tests/golden/text/v4_tokenizer.json.xz >build/oracle/tokenizer.json
  "$NAUTILE_PYTHON" tests/oracle/tokenizer_oracle.py compare build/oracle/tokenizer.json "$program"
  "$NAUTILE_PYTHON" tests/oracle/grammar_oracle.py build/release/tests/grammar/grammar_probe build/oracle/tokenizer.json
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
"${NAUTILE_CLIENTS_PYTHON:-${NAUTILE_PYTHON:-python3}}" tests/e2e/serve_schemas.py build/release/nautile models/nano
python3 tests/e2e/chat_cli.py build/asan/nautile models/nano
python3 tests/e2e/readme_examples.py build/release/nautile || [ $? -eq 77 ] # 77: no curl, no port
python3 tests/e2e/serve_page.py build/release/nautile models/nano || [ $? -eq 77 ] # 77: no chromium here
python3 tests/e2e/plan_page.py build/release/nautile || [ $? -eq 77 ] # 77: no chromium here
