# Everything this repository does, from a fresh clone with Python 3.11 or newer and make. `make` lists the targets.

VENV := .venv
BASE_VENV := .venv-base
ADAPTERS_VENV := .venv-adapters
RAY_VENV := .venv-ray
BROWSER_VENV := .venv-browser
KERAS_VENV := .venv-keras
OLDEST_VENV := .venv-oldest
PY := $(VENV)/bin/python
CORPUS := data/corpus.txt
MODEL := data/corpus.jose
TEXT := parse a date from a string
SEEDS ?= 3
PORT ?= 8080
SERVICE := data/service
SOAK_SECONDS ?= 1800
FUZZ_SECONDS ?= 600

# `make TARGET UV=uv` installs with uv: several times as fast as pip, but it does not read pip's settings.
UV :=
install = $(if $(UV),$(UV) pip install --quiet --python $(1)/bin/python,$(1)/bin/python -m pip install --quiet --disable-pip-version-check)

# The first interpreter that runs, is new enough and can make environments: a name on the PATH alone proves nothing.
FIND_PYTHON = for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		found=$$(command -v "$$python"); break; \
	fi; \
done; \
if [ -z "$$found" ]; then \
	echo "No Python 3.11 or newer with the venv module was found (tried python3, python3.14 ... python3.11, python);"; \
	echo "install one (Debian, Ubuntu: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3"; \
	exit 1; \
fi

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-train demo-query demo-serve demo-stop install-dev test lint types unit smoke test-slow docs \
	test-gpu test-image test-compose test-adapters test-ray bench-scale bench-cluster test-keras test-oldest test-browser soak fuzz bench bench-sizes bench-cores bench-quality bench-inference bench-gpu bench-service clean

help:  ## this list
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'

# ---- environments -------------------------------------------------------------------------------------------------

%/bin/python:
	@$(FIND_PYTHON); echo "$$("$$found" --version) at $$found makes the environment $*"; "$$found" -m venv $*

# The package is installed in place (-e): an edited file counts at once. The stamps rerun pip when the needs change.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing jose-embed and what it needs into $(VENV) (about 0.4 GB, most of it the compiler numba brings)"
	@$(call install,$(VENV)) -c constraints.txt -e ".[service]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing jose-embed and its development tools into $(VENV)"
	@$(call install,$(VENV)) -c constraints.txt -e ".[dev,eval,map,parquet,service,chinese,japanese,thai,korean]"
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/.dev
	@$(call install,$(VENV)) -c constraints.txt -e ".[dev,eval,map,parquet,service,chinese,japanese,thai,korean,bench]"
	@touch $@

$(BASE_VENV)/.base: pyproject.toml constraints.txt | $(BASE_VENV)/bin/python
	@echo "installing jose-embed without extras into $(BASE_VENV)"
	@$(call install,$(BASE_VENV)) -c constraints.txt .
	@touch $@

$(ADAPTERS_VENV)/.adapters: pyproject.toml tests/adapters/requirements.txt | $(ADAPTERS_VENV)/bin/python
	@echo "installing jose-embed and the libraries of tests/adapters/requirements.txt into $(ADAPTERS_VENV) (3 GB)"
	@$(call install,$(ADAPTERS_VENV)) -r tests/adapters/requirements.txt
	@$(call install,$(ADAPTERS_VENV)) --no-deps -e .
	@touch $@

# Keras with its other backends, and the oldest versions: environments of their own.
$(KERAS_VENV)/.keras: pyproject.toml constraints.txt tests/adapters/keras.txt | $(KERAS_VENV)/bin/python
	@echo "installing jose-embed, Keras, jax and tensorflow into $(KERAS_VENV) (3 GB)"
	@$(call install,$(KERAS_VENV)) -e . -r tests/adapters/keras.txt
	@touch $@

$(OLDEST_VENV)/.oldest: pyproject.toml tests/adapters/oldest.txt | $(OLDEST_VENV)/bin/python
	@echo "installing jose-embed and the versions of tests/adapters/oldest.txt into $(OLDEST_VENV)"
	@$(call install,$(OLDEST_VENV)) -e . -r tests/adapters/oldest.txt
	@touch $@

$(BROWSER_VENV)/.browser: pyproject.toml constraints.txt tests/browser/requirements.txt | $(BROWSER_VENV)/bin/python
	@echo "installing jose-embed and the driver of tests/browser/requirements.txt into $(BROWSER_VENV)"
	@$(call install,$(BROWSER_VENV)) -c constraints.txt \
		-e ".[dev,map,service]" -r tests/browser/requirements.txt
	@touch $@

$(RAY_VENV)/.ray: pyproject.toml constraints.txt tests/distributed/requirements.txt | $(RAY_VENV)/bin/python
	@echo "installing jose-embed, Ray and an S3 server for tests into $(RAY_VENV)"
	@$(call install,$(RAY_VENV)) -c constraints.txt -e ".[eval,parquet,ray]"
	@$(call install,$(RAY_VENV)) -r tests/distributed/requirements.txt
	@touch $@

install-dev: $(VENV)/.dev  ## the environment for development, in .venv

# ---- the demo -----------------------------------------------------------------------------------------------------

demo: demo-train demo-query demo-serve  ## train on the bundled corpus, show neighbours of words and of a document

$(CORPUS): data/make_corpus.py | $(VENV)/.demo
	@echo; echo "\$$ python data/make_corpus.py"
	@$(PY) data/make_corpus.py --output $@

demo-train: $(VENV)/.demo $(CORPUS)
	@echo; echo "\$$ jose-train $(CORPUS) --output $(MODEL) --overwrite --checkpoint-every 0 --keep-text"
	@$(VENV)/bin/jose-train $(CORPUS) --output $(MODEL) --overwrite --checkpoint-every 0 --keep-text

demo-query:
	@for word in thread matrix password; do \
		echo; echo "\$$ jose similar $(MODEL) $$word -k 5"; \
		$(VENV)/bin/jose similar $(MODEL) $$word -k 5 || exit; \
	done
	@line=$$(awk -F'\t' '$$1 == "json.dumps" { print NR }' data/corpus.tsv); echo; \
	echo "\$$ jose documents $(MODEL) $$line --labels data/corpus.tsv -k 5        # line $$line is json.dumps"; \
	$(VENV)/bin/jose documents $(MODEL) "$$line" --labels data/corpus.tsv -k 5
	@echo; echo "\$$ jose documents $(MODEL) --text '$(TEXT)' --labels data/corpus.tsv -k 5"
	@$(VENV)/bin/jose documents $(MODEL) --text '$(TEXT)' --labels data/corpus.tsv -k 5

# Leaves the service running; `make demo-stop` ends it. A service of an earlier demo makes room for this one.
demo-serve: $(VENV)/.demo
	@$(MAKE) --no-print-directory demo-stop
	@echo; echo "\$$ jose-serve $(MODEL) --port $(PORT)"
	@nohup $(VENV)/bin/jose-serve $(MODEL) --port $(PORT) > $(SERVICE).log 2>&1 < /dev/null & echo $$! > $(SERVICE).pid
	@for i in $$(seq 300); do \
		$(VENV)/bin/jose-serve healthcheck --url http://127.0.0.1:$(PORT) > /dev/null 2>&1 && break; \
		kill -0 "$$(cat $(SERVICE).pid)" 2> /dev/null || { tail -n 3 $(SERVICE).log; rm -f $(SERVICE).pid; exit 1; }; \
		sleep 0.2; \
	done
	@echo; echo "It runs in the background, with its log in $(SERVICE).log; stop it with: make demo-stop"
	@echo "All calls: http://127.0.0.1:$(PORT)/docs. Three to try:"; echo
	@echo "  curl 'http://127.0.0.1:$(PORT)/similar?word=thread&k=5'"
	@echo "  curl http://127.0.0.1:$(PORT)/embed-doc -H 'Content-Type: application/json' -d '{\"text\": \"read a file line by line\"}'"
	@echo "  curl http://127.0.0.1:$(PORT)/search -H 'Content-Type: application/json' -d '{\"text\": \"$(TEXT)\", \"k\": 3}'"
	@echo; echo "The same in a browser: http://127.0.0.1:$(PORT)/"

demo-stop:  ## stop the service that the demo left running
	@if [ -f $(SERVICE).pid ]; then \
		pid=$$(cat $(SERVICE).pid); rm -f $(SERVICE).pid; \
		if ps -p "$$pid" -o args= 2> /dev/null | grep -q jose-serve; then \
			kill "$$pid"; while kill -0 "$$pid" 2> /dev/null; do sleep 0.1; done; echo "the service (process $$pid) has stopped"; \
		fi; \
	fi

# ---- checks -------------------------------------------------------------------------------------------------------

test: lint types unit smoke  ## ruff, import order, mypy --strict, the tests with their doctests, and a base install without extras

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo

types: $(VENV)/.dev
	$(VENV)/bin/mypy

# Two processes, a file of tests in one of them: most tests of the service wait, and this halves the time on two cores.
unit: $(VENV)/.dev
	$(PY) -m pytest -q -n 2 --dist loadfile

smoke: $(BASE_VENV)/.base
	@$(call install,$(BASE_VENV)) --no-deps --force-reinstall .
	$(BASE_VENV)/bin/python tests/base_install.py

test-slow: $(VENV)/.dev  ## the tests that take minutes
	$(PY) -m pytest -q -m slow

test-gpu: $(VENV)/bin/python  ## the tests of the CuPy backend; needs a CUDA device
	$(call install,$(VENV)) -c constraints.txt -e ".[dev,eval,map,parquet,service,gpu]"
	$(PY) -m pytest -q -m gpu

test-adapters: $(ADAPTERS_VENV)/.adapters  ## the adapters with the heavy libraries, in .venv-adapters
	KERAS_BACKEND=torch $(ADAPTERS_VENV)/bin/python -m pytest -q -m "slow or not slow" tests/adapters \
		--deselect tests/adapters/test_extras.py --deselect tests/adapters/test_tour.py

test-keras: $(KERAS_VENV)/.keras  ## the adapter for Keras with the backends jax and tensorflow, in .venv-keras
	KERAS_BACKEND=jax $(KERAS_VENV)/bin/python -m pytest -q -m slow tests/adapters/test_keras.py
	KERAS_BACKEND=tensorflow $(KERAS_VENV)/bin/python -m pytest -q -m slow tests/adapters/test_keras.py

test-oldest: $(OLDEST_VENV)/.oldest  ## the adapters with the oldest versions that pyproject.toml allows, in .venv-oldest
	KERAS_BACKEND=torch $(OLDEST_VENV)/bin/python -m pytest -q -m "slow or not slow" tests/adapters \
		--deselect tests/adapters/test_extras.py --deselect tests/adapters/test_tour.py

test-browser: $(BROWSER_VENV)/.browser  ## the map and the page in a real browser without a network
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || \
		{ apt-get update -qq && apt-get install -y -qq chromium; } || \
		{ echo "chromium is missing and was not installed; install it and run this again"; exit 1; }
	$(BROWSER_VENV)/bin/python -m pytest -q -m browser tests/browser

test-ray: $(RAY_VENV)/.ray  ## the engine on a Ray cluster of two nodes on this machine, in .venv-ray
	$(RAY_VENV)/bin/python -m pytest -q -m "slow or not slow" tests/distributed

bench-scale: $(RAY_VENV)/.ray  ## quality and bytes by the number of machines, simulated
	$(RAY_VENV)/bin/python tests/benchmarks/scale.py --deltas int8

bench-cluster: $(RAY_VENV)/.ray  ## forecast against measured exchanges, time and memory of a training on two nodes
	$(RAY_VENV)/bin/python tests/benchmarks/cluster.py exchanges
	$(RAY_VENV)/bin/python tests/benchmarks/cluster.py newsgroups --deltas int8

test-image: $(VENV)/.dev  ## the Dockerfile's steps and the compose file's services, without Docker
	$(PY) tests/service/image.py

test-compose: $(VENV)/.dev  ## docker compose with the engine that is there; skipped if there is none
	$(PY) -m pytest -q -rs -s -m compose tests/service/test_compose.py

soak: $(VENV)/.dev  ## the service and two replicas under mixed load for SOAK_SECONDS (1800): memory must stay level
	SOAK_SECONDS=$(SOAK_SECONDS) $(PY) -m pytest -q -s -m slow tests/service/engine/test_soak.py

fuzz: $(VENV)/.dev  ## hostile input to everything that reads, for FUZZ_SECONDS (600); counts the tries
	$(PY) tests/fuzz.py --seconds $(FUZZ_SECONDS)

# ---- documents ------------------------------------------------------------------------------------------------------

# pdoc 16 cannot resolve the annotations of a NamedTuple that another module shows again.
docs: $(VENV)/.dev  ## the API reference from the docstrings, in build/api
	$(PY) -W error -W "ignore:Error parsing type annotation:UserWarning" -m pdoc --docformat google --output-directory build/api jose_embed

# ---- measurements; each prints its tables, none asserts a time ------------------------------------------------------

bench: $(VENV)/.bench  ## training speed and memory beside gensim and, with JOSE_REFERENCE=/path/to/jose, the reference
	$(PY) tests/benchmarks/speed.py

bench-sizes: $(VENV)/.bench  ## time and memory of 1, 2, 4 and 8 times as much text
	$(PY) tests/benchmarks/speed.py --sizes

bench-cores: $(VENV)/.bench  ## training speed on 1, 2, 4, 8 and 16 cores, as many as there are
	$(PY) tests/benchmarks/speed.py --cores

bench-quality: $(VENV)/.bench  ## the quality tables and what the order of documents does, from ../shared/data
	$(PY) tests/benchmarks/quality.py --seeds $(SEEDS)
	$(PY) tests/benchmarks/order.py --seeds $(SEEDS)

bench-gpu: $(VENV)/bin/python  ## speed, memory traffic and time to quality on a CUDA device
	$(call install,$(VENV)) -c constraints.txt -e ".[dev,eval,map,parquet,service,gpu]"
	$(PY) tests/benchmarks/gpu_speed.py

bench-inference: $(VENV)/.bench  ## vectors for new documents per second, beside gensim
	$(PY) tests/benchmarks/inference_speed.py

bench-service: $(VENV)/.bench  ## requests per second and latencies of the service
	$(PY) tests/benchmarks/service_load.py

clean: demo-stop  ## remove the environments, the caches and the demo's corpus and model
	rm -rf $(VENV) $(BASE_VENV) $(ADAPTERS_VENV) $(KERAS_VENV) $(OLDEST_VENV) $(BROWSER_VENV) build dist \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis \
		tests/benchmarks/.cache $(MODEL)
	rm -f data/corpus.txt data/corpus.tsv data/tour-map.html data/corpus.documents.sqlite3* $(SERVICE).log $(SERVICE).pid
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
