# Every target makes .venv when it is not there and reuses it afterwards.
#   make demo ARGS="--seconds 20"      PYTHON=python3.12 make test

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench-installed

.DEFAULT_GOAL := help
.PHONY: help demo test chaos lint bench evaluate ablation schemas dashboards

help: ## Show this list
	@echo "Targets; ARGS=\"...\" is passed on, PYTHON=... chooses the Python (3.10 or newer):"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done

demo: $(STAMP) ## Watch events go through an embedded broker and a worker
	@$(BIN)/interest-stream demo $(ARGS)

test: $(STAMP) ## Run all tests; the integration tests start the embedded broker
	@$(BIN)/python -m pytest -n 4 --maxschedchunk 1 \
		tests/unit tests/failures tests/integration tests/acceptance $(ARGS)

chaos: $(STAMP) ## Break the worker in every way, and check that nothing is lost or doubled
	@$(BIN)/python -m tests.failures.chaos $(ARGS)

lint: $(STAMP) ## Check style, types, security, the compose file and the Dockerfile
	@echo "ruff check"; $(BIN)/ruff check .
	@echo "ruff format"; $(BIN)/ruff format --check .
	@echo "mypy"; $(BIN)/mypy
	@echo "bandit"; $(BIN)/bandit --quiet --configfile pyproject.toml --recursive stream_app model
	@echo "compose file"; $(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@echo "Dockerfile"; $(BIN)/hadolint --failure-threshold info deploy/Dockerfile

bench: $(BENCH_STAMP) ## Measure the worker beside stock Faust and Quix Streams; write RESULTS.md
	@$(BIN)/python -m tests.benchmarks $(ARGS)

evaluate: $(BENCH_STAMP) ## Measure all predictions on the real logs; write model/EVALUATION.md
	@$(BIN)/python -m model.evaluation $(ARGS)

ablation: $(STAMP) ## Measure what each part of the model is worth; write model/ABLATION.md
	@$(BIN)/python -m model.evaluation.ablation $(ARGS)

schemas: $(STAMP) ## Write JSON Schemas, AsyncAPI and OpenAPI documents to deploy
	@$(BIN)/python -c 'from pathlib import Path; from stream_app.openapi import export_openapi; \
		from stream_app.schemas import export_schemas; \
		print(*export_schemas(Path("deploy/schemas")), sep="\n"); \
		print(export_openapi(Path("deploy/openapi.json")))'
	@$(BIN)/python -m deploy.asyncapi

dashboards: $(STAMP) ## Write the Grafana dashboard of deploy/grafana/dashboards.py
	@$(BIN)/python -m deploy.grafana.dashboards

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		echo "interest-stream needs Python 3.10 or newer, and $(PYTHON) is not;" \
			"name one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment;" \
			"on Debian and Ubuntu install the package python3-venv" >&2; exit 1; }; }
	@echo "Installing interest-stream into $(VENV); the first time takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[demo,test]'
	@touch $@

# Quix Streams asks for an older pydantic than the worker is tested with, and for Python 3.11: it lies
# in a folder from which only its contender imports, and the benchmark goes on without it, and without
# the index libraries, one of which needs a compiler.
$(BENCH_STAMP): $(STAMP) tests/benchmarks/quix-constraints.txt
	@echo "Installing what the benchmark compares with and draws with"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[bench]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade \
		--target $(VENV)/quix -c tests/benchmarks/quix-constraints.txt 'quixstreams>=3.28,<4' || \
		echo "Quix Streams cannot be installed here; it is left out" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[indexes]' || \
		echo "The index libraries cannot be installed here; they are left out" >&2
	@touch $@
