# Each target sets itself up from a bare Python 3.11 or newer; a second run finds everything in place.
.PHONY: demo test check bench format lint types floors setup

PORT ?= 8000
BIN := .venv/bin

demo:
	@./scripts/setup demo
	@$(BIN)/python -m goodanalytics demo --port $(PORT)

test: setup
	@./scripts/test

check: setup lint types floors test

bench: setup
	@$(BIN)/python -m benchmarks

format: setup
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

lint: setup
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check

types: setup
	@$(BIN)/mypy
	@$(BIN)/mypy --follow-imports=silent alembic examples

floors: setup
	@$(BIN)/lint-imports --no-cache

setup:
	@./scripts/setup all
