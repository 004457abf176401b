# The commands that a contributor needs; `make` lists them. Each works on a fresh clone.
.DEFAULT_GOAL := help
.PHONY: help install test lint docs web ci
python := .venv/bin/python

help:
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

install: $(python) ## set up .venv: deop from this directory, and the tools of a contributor

$(python): pyproject.toml constraints.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet -c constraints.txt -e ".[dev,train]"
	@touch $(python)

test: $(python) ## run the tests except slow ones (all: make test options=--runslow)
	.venv/bin/pytest -n auto $(options)

lint: $(python) ## check style, spelling and types, and repair what can be repaired
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/codespell .
	.venv/bin/mypy

docs: $(python) ## show the documentation at http://127.0.0.1:8000
	.venv/bin/mkdocs serve

web: ## build the page into src/deop/web (needs Node 20); web/ci.sh also tests it
	cd web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

ci: ## run everything that a change must pass, in a fresh environment
	.ci/run
