# Commands of the repository; each sets up .venv on a fresh machine first.
PYTHON ?= python3
VENV ?= .venv
READY = $(VENV)/.ready
BIN = $(VENV)/bin

.PHONY: demo test check clean

demo: $(READY)
	$(BIN)/python scripts/demo.py $(if $(SERVE),--serve)

test: $(READY)
	scripts/check $(BIN)
	$(BIN)/python -m pytest -m "not gpu and not weights"

check: $(READY)
	scripts/check $(BIN)

# Torch is named first and pinned: resolved later, it would bring gigabytes of GPU libraries along.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu,s3]' --group dev
	touch $@

clean:
	rm -rf $(VENV) out
