# The few commands a person needs. `make run` and `make test` install what they lack (Debian packages), build, and do it.
#
#   make                     the program, at build/nautile
#   make run                 chat with nano, the small model that ships here
#   make run PROMPT="hello"  one answer
#   make test                unit and golden tests
#   make bench-gate          V4-Flash layers against the stored shares of the machine's ceilings (11 GB of memory)
#   make test-all            and sanitizers, fuzzers (bounded), oracles, end to end
BUILD := build/release
JOBS ?= $(shell nproc)
MODEL ?= models/nano

.PHONY: all run test test-all bench-gate bench-baseline deps clean format
all: build/nautile

deps:
	@scripts/install-deps.sh

$(BUILD)/build.ninja: CMakeLists.txt | deps
	@cmake --preset release >&2

.PHONY: build/nautile
build/nautile: $(BUILD)/build.ninja
	@cmake --build $(BUILD) -j $(JOBS) --target nautile >&2
	@ln -sfn release/nautile build/nautile

run: build/nautile
ifdef PROMPT
	@build/nautile run $(MODEL) --prompt "$(PROMPT)"
else
	@build/nautile chat $(MODEL)
endif

test: build/nautile
	cmake --build $(BUILD) -j $(JOBS)
	ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

test-all: test
	scripts/test-all.sh

# Shares of the bound, not rates: see scripts/bench-gate.py for the tolerance, docs/performance.md for the rows.
GATE := --shape v4-flash --depth 0,32k,256k --batch 1,4 --decode 8 --prefill 512 --json
bench-gate: build/nautile
	build/nautile bench $(GATE) >build/bench-gate.json
	scripts/bench-gate.py bench/baseline.json build/bench-gate.json

# After a change that is meant to move them.
bench-baseline: build/nautile
	build/nautile bench $(GATE) >build/bench-gate.json
	scripts/bench-gate.py --update bench/baseline.json build/bench-gate.json

format:
	git ls-files '*.cc' '*.h' | xargs clang-format -i

clean:
	rm -rf build
