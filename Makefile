# One command per chore. Everything happens in .venv, which is made once and remade when a pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(patsubst plugins/%/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
WITH_EXTRAS := $(patsubst plugins/%/pyproject.toml,%,$(shell grep -l '^all = ' plugins/*/pyproject.toml))
EDITABLE := -e '.[dev]' $(foreach p,$(PLUGINS),-e 'plugins/$(p)$(if $(filter $(p),$(WITH_EXTRAS)),[all])')
PROJECTS := pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
# Two cores are better used by two processes of one thread each than by one process of two.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.PHONY: demo test test-long lint format bench docs methods networks glow train-smoke registry clean

demo: .venv/installed
	$(BIN)/preimage demo --out demo
	$(BIN)/preimage compare smoke --out demo/smoke --jobs 2
	$(BIN)/preimage compare report demo/smoke
	@if [ -t 1 ] && [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then $(BIN)/python -m webbrowser demo/smoke/report.html; fi

# ODL, a peer of `make bench`, brings a pytest plugin whose hooks the pytest of today refuses; tests run pytest too.
test: export PYTEST_ADDOPTS = -p no:odl_plugins
test: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto --dist worksteal

# What `make test` does at a smaller scale.
test-long: export PYTEST_ADDOPTS = -p no:odl_plugins
test-long: .venv/installed
	$(ONE_THREAD) $(BIN)/python -m pytest -n auto -m long

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pyright -p plugins
	$(BIN)/python tools/write_registry.py --check

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed-bench
	$(ONE_THREAD) $(BIN)/python -m pytest benchmarks/perf -p no:xdist -q -W default --benchmark-quiet --report docs/speed.md

docs: .venv/installed
	$(BIN)/python tools/write_docs.py

methods: .venv/installed
	$(BIN)/preimage compare cross --out results/cross --jobs 2
	$(BIN)/python tools/write_methods.py results/cross

# Figures of the trained networks; needs PREIMAGE_DATA with bsds500/val.
networks: .venv/installed
	$(BIN)/preimage compare benchmarks/suites/networks.toml --out results/networks --jobs 2
	$(BIN)/python tools/write_networks.py results/networks
	$(BIN)/python tools/write_recipes.py

# The studies of invertible generative priors; needs PREIMAGE_DATA with the faces, and hours. The linear baseline is
# fitted here, to the training faces: its principal components are too large to ship.
GLOW := $(filter-out benchmarks/suites/glow-tune-%,$(wildcard benchmarks/suites/glow-*.toml))
glow: .venv/installed results/glow/gaussian-faces.safetensors
	$(foreach s,$(GLOW),$(BIN)/preimage compare $(s) --out results/glow/$(basename $(notdir $(s))) --jobs 2;)
	$(BIN)/python tools/write_glow.py results/glow

results/glow/gaussian-faces.safetensors:
	$(BIN)/preimage fit gaussian-spectrum faces/celeba_train --out $@ --mean image --components 600 --flip \
	  --note "CelebA, training images; for non-commercial research"

# Every objective and network trained for seconds: part of `make test` too.
train-smoke: .venv/installed
	$(ONE_THREAD) $(BIN)/python -m pytest plugins/train/tests plugins/iresnet/tests -q -k "loss_falls or adversaries or likelihood"

registry: .venv/installed
	$(BIN)/python tools/write_registry.py

.venv/installed: $(PROJECTS)
	@echo "Setting up .venv: once, a few minutes, most of them spent on downloading PyTorch"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -c constraints.txt $(EDITABLE)
	@touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

clean:
	rm -rf .venv demo runs build dist
