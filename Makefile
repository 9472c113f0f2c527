# Two commands are enough to start: `make demo` and `make test`. Everything else: `make help`.
# Further targets stand in make/*.mk, one file per subject.

VENV := .venv
BIN := $(VENV)/bin
PYTHON_BIN := $(BIN)/python
RELEASE := .venv-release
STAMP := $(VENV)/.stamp
RELEASE_STAMP := $(RELEASE)/.stamp
UV_COMPILE := $(RELEASE)/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-config --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## show this list
	@echo "Coterie: make demo, make test, and:"
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' \
		$(MAKEFILE_LIST) | sort

.PHONY: setup
setup: $(STAMP) ## create .venv with everything pinned, and the project itself

$(STAMP): requirements/dev.txt pyproject.toml
	@make/setup.sh $(VENV) requirements/dev.txt --editable

$(RELEASE_STAMP): requirements/release.txt
	@make/setup.sh $(RELEASE) requirements/release.txt

.PHONY: demo
demo: $(STAMP) ## see the life of a group (DEMO_ARGS=...)
	@$(BIN)/coterie demo $(DEMO_ARGS)

.PHONY: test
test: $(STAMP) ## run all tests (PYTEST_ARGS=...)
	@$(BIN)/pytest -q -n auto $(PYTEST_ARGS)

.PHONY: lint lint-rules lint-format lint-types lint-imports
lint: lint-rules lint-format lint-types lint-imports ## check style, types and the order of imports

lint-rules: $(STAMP)
	@$(BIN)/ruff check .

lint-format: $(STAMP)
	@$(BIN)/ruff format --check .

lint-types: $(STAMP)
	@$(BIN)/mypy src tests

lint-imports: $(STAMP)
	@$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## put the code into the one form
	@$(BIN)/ruff format .

.PHONY: lock
lock: $(RELEASE_STAMP) ## renew the lock files (LOCK_ARGS=--upgrade for newer versions)
	@$(UV_COMPILE) $(LOCK_ARGS) pyproject.toml --extra dev --output-file requirements/dev.txt
	@$(UV_COMPILE) $(LOCK_ARGS) pyproject.toml --extra dev --extra fuzz \
		--constraints requirements/dev.txt --output-file requirements/fuzz.txt
	@$(UV_COMPILE) $(LOCK_ARGS) pyproject.toml --extra client --extra serve \
		--constraints requirements/dev.txt --output-file requirements/runtime.txt
	@$(UV_COMPILE) $(LOCK_ARGS) --group build \
		--constraints requirements/dev.txt --output-file requirements/build.txt
	@$(UV_COMPILE) $(LOCK_ARGS) --group release --output-file requirements/release.txt

# Strict, since without it a package that could not be looked up counts as one without a weakness.
.PHONY: audit
audit: $(RELEASE_STAMP) ## look the pinned versions up in the vulnerability databases
	@make/audit.sh $(RELEASE)/bin/pip-audit requirements/runtime.txt requirements/build.txt requirements/dev.txt

.PHONY: sbom
sbom: $(RELEASE_STAMP) ## write build/sbom.json (CycloneDX) for an installation with client and services
	@mkdir -p build
	@$(RELEASE)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file build/sbom.json requirements/runtime.txt
	@echo "build/sbom.json written"

.PHONY: wheel-check
wheel-check: $(STAMP) ## build the wheel of the last commit twice and compare
	@make/wheel-check.sh $(PYTHON_BIN)

.PHONY: clean
clean: ## remove what the tools made; the virtual environments stay
	@rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

include $(sort $(wildcard make/*.mk))
