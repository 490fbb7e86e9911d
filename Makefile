# Two commands on a fresh machine: `make demo` and `make test`. Everything lands in .venv and build.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo test test-clients test-clusters fuzz sweep lint format type docs docs-run site package bench bench-large clean

help:            ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)   ## convert the real all-MiniLM-L6-v2 to ONNX and Keras, print parity tables and similarities
	@sh examples/demo.sh $(BIN)

test: $(READY)   ## the whole suite
	$(BIN)/pytest -n auto --dist worksteal $(ARGS)

fuzz: $(READY)   ## mutated files of every kind for 20 minutes: an error or an answer, and nothing else
	$(BIN)/python tests/fuzzing.py $(ARGS)

sweep: $(READY)  ## every text architecture of transformers as a tiny model to every backend, for docs/architectures.md; hours, goes on where it ended
	$(BIN)/python tests/sweep.py $(ARGS)
	$(BIN)/python tests/sweep.py --write
	$(BIN)/python docs/generate.py

lint: $(READY)   ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(READY)   ## types
	$(BIN)/mypy

docs: $(READY)   ## the generated pages are up to date, and every link leads somewhere
	$(BIN)/python docs/generate.py --check

docs-run: $(READY) ## every command and Python block of the pages and notebooks, in a scratch folder; half an hour
	$(BIN)/python docs/run.py $(ARGS)

test-clients: $(READY) ## other software from the package registries, on converted folders; 15 minutes, 4 GB of disk
	$(BIN)/python tests/clients/run.py $(ARGS)

test-clusters: $(READY) ## tables on Ray, on Spark (needs Java 17), in Hugging Face datasets and in Lance; 1 GB of disk, 5 minutes
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray,spark,lance]' datasets
	$(BIN)/pytest -rs tests/test_clusters.py tests/test_tables.py -k "clusters or lance or library" $(ARGS)

site: $(READY)   ## the documentation as pages, in build/site, looked at in headless Chromium where that is installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[site]'
	$(BIN)/mkdocs build --strict
	$(BIN)/pytest -m site tests/test_site.py

package: $(READY) ## wheel and sdist in dist/, checked, and installed into a fresh environment with each extra
	DIST=dist $(BIN)/pytest -m package tests/test_build.py $(ARGS)

bench: $(READY)  ## speed and memory beside PyTorch, as ratios of the same run
	$(BIN)/python -m bench $(ARGS)

bench-large: $(READY) ## memory while a model of 1.5 billion parameters is converted; 20 GB of disk, an hour
	$(BIN)/python -m bench.large $(ARGS)

clean:           ## remove what the commands above made
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache
