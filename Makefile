# Each target sets up what it needs: see dev/. `make run PYTHON=python3.12` uses another interpreter.
PYTHON ?= python3
ARGS ?=

.PHONY: run cluster cli image check test test-integrations lint soak bench lock docs audit

run: ## start a server and run a first program on it
	@$(PYTHON) dev/run.py

cluster: ## start Consul and three servers that share their executions
	@$(PYTHON) dev/cluster.py

cli: ## build the Go command line, a static binary: dist/python-executor
	@$(PYTHON) dev/golang.py

image: ## build the server's image, python-executor:<version> or ARGS=NAME, and print the size of its parts
	@$(PYTHON) dev/server_image.py $(ARGS)

check: ## inner loop: static checks, and the tests that need no Docker
	@$(PYTHON) dev/check.py check $(ARGS)

test: ## static checks and every kind of test, with real Docker and Consul; ARGS="-k name" selects tests
	@$(PYTHON) dev/check.py test $(ARGS)

test-integrations: ## the tests of pyexec_client/integrations, with the agent frameworks; part of `make soak`
	@$(PYTHON) dev/check.py test-integrations $(ARGS)

lint: ## the static checks only
	@$(PYTHON) dev/check.py lint

soak: ## all tests at full size, which takes hours; before a release
	@$(PYTHON) dev/check.py soak $(ARGS)

bench: ## run the benchmarks; ARGS=latency selects a subject
	@$(PYTHON) dev/check.py bench $(ARGS)

lock: ## pin the latest versions in requirements.lock
	@$(PYTHON) dev/lock.py

docs: ## generate docs/configuration.md
	@$(PYTHON) dev/check.py docs

audit: ## look up known vulnerabilities of the pinned dependencies
	@$(PYTHON) dev/check.py audit $(ARGS)
