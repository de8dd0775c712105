# Everything is set up on the way: see dev/. `make run PYTHON=python3.12` picks another interpreter.
PYTHON ?= python3
ARGS ?=

.PHONY: run cluster cli image check test lint soak bench lock docs audit

run: ## start a server here, run a first program in it
	@$(PYTHON) dev/run.py

cluster: ## one Consul and three servers here, which share their executions
	@$(PYTHON) dev/cluster.py

cli: ## the Go command line, one static program: dist/python-executor
	@$(PYTHON) dev/golang.py

image: ## the server's image, python-executor:<version> or ARGS=NAME, and what weighs what in it
	@$(PYTHON) dev/server_image.py $(ARGS)

check: ## the inner loop: the static checks, and the tests that need no Docker
	@$(PYTHON) dev/check.py check $(ARGS)

test: ## every check and every kind of test, with real parts; ARGS="-k name" for some of the tests
	@$(PYTHON) dev/check.py test $(ARGS)

lint: ## the static checks alone
	@$(PYTHON) dev/check.py lint

soak: ## all tests at full size, which takes hours; before a release
	@$(PYTHON) dev/check.py soak $(ARGS)

bench: ## the figures, as a table
	@$(PYTHON) dev/check.py bench $(ARGS)

lock: ## pin today's latest versions in requirements.lock
	@$(PYTHON) dev/lock.py

docs: ## write docs/configuration.md anew
	@$(PYTHON) dev/check.py docs

audit: ## known vulnerabilities of what is pinned, where this machine reaches who knows them
	@$(PYTHON) dev/check.py audit $(ARGS)
