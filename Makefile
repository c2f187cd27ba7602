# Everything runs in .venv, which scripts/make_venv.py makes once and keeps up to date. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help venv demo lint test clean

PYTHON ?= $(shell sh scripts/find_python.sh)
SEED ?= 0
OUTPUT ?= output/demo
BIN := .venv/bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## make .venv with the package and its pinned dependencies (PYTHON=python3.12 chooses the Python)
	@$(or $(PYTHON),exit 1;) scripts/make_venv.py

demo: venv ## fine-tune a small model on drawn shapes and draw its boxes into OUTPUT=output/demo (SEED=0)
	$(BIN)/python paddlemix/examples/demo/run.py --seed $(SEED) --output_dir "$(OUTPUT)"

lint: venv ## check style, types and docstrings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pydoclint --quiet paddlemix

test: lint ## lint, then run the tests
	$(BIN)/pytest -n 2 --dist loadfile

clean: ## remove .venv, caches and output/demo
	rm -rf .venv build external_ops/build paddlemix.egg-info output/demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find paddlemix tests scripts external_ops -name __pycache__ -prune -exec rm -rf {} +
