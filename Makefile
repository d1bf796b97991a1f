# The commands of this project; `make help` lists them. Needs Python 3.11, pip, make and gcc.

PYTHON ?= python3.11
FLAVOUR ?= cpu
VENV := .venv
BIN := $(VENV)/bin
TRITON := .triton-venv
MOSEC := .mosec-venv
INSTALLED := $(VENV)/installed-$(FLAVOUR)
PACKAGES := ridgeline training export serving loadtest conformance

.DEFAULT_GOAL := help
.PHONY: help install compile demo test lint format serve zoo bench bench-peers measurement budget budget-proof triton conformance fuzz lock clean

help: ## List these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## Set up .venv with the locked versions (FLAVOUR=gpu for CUDA builds)

$(INSTALLED): requirements/$(FLAVOUR).txt pyproject.toml
	@echo "Setting up $(VENV) with locked versions: about 600 MB to download, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-deps --require-hashes --requirement requirements/$(FLAVOUR).txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	$(BIN)/python -m serving.compile
	@touch $@

compile: $(INSTALLED) ## Compile the modules on the way of every request anew, after a change to them
	$(BIN)/python -m serving.compile

# However make ends, the demo ends with it.
demo: export RIDGELINE_STOP_WITH_PARENT = 1
demo: $(INSTALLED) ## Train, export, serve and measure LeNet-5 on MNIST, and write reports/demo/
	@$(BIN)/python -m ridgeline demo

test: $(INSTALLED) ## Run the whole test suite and measure its coverage
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

lint: $(INSTALLED) ## Check style, types, who imports whom, the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

format: $(INSTALLED) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(INSTALLED) ## Serve model_repository/ on 8001 (gRPC), 8000 (HTTP), 8002 (metrics)
	@ls model_repository/*/*/model.onnx >/dev/null 2>&1 || { \
	    echo "model_repository/ is empty: training LeNet-5 first"; \
	    $(BIN)/ridgeline train lenet5 && $(BIN)/ridgeline export artifacts/lenet5; }
	$(BIN)/ridgeline serve

# A recipe that missed what it asks is trained again when it was changed since: the same run ends the same.
zoo: export RIDGELINE_STOP_WITH_PARENT = 1
zoo: $(INSTALLED) ## Train and export every recipe that has no artifact yet; goes on where it was stopped
	@trap 'exit 130' INT; made=; failed=; missed=; skipped=; for recipe in training/recipes/*.toml; do \
	    name=$$(basename $$recipe .toml); artifact=artifacts/$$name; \
	    if [ ! -d $$artifact/saved_model ]; then \
	        if [ -f $$artifact/training.json ] && [ ! $$recipe -nt $$artifact/training.json ]; then \
	            missed="$$missed $$name"; continue; \
	        fi; \
	        $(BIN)/ridgeline train $$name; code=$$?; \
	        if [ $$code = 4 ]; then skipped="$$skipped $$name"; continue; fi; \
	        if [ $$code != 0 ]; then failed="$$failed $$name"; continue; fi; \
	    fi; \
	    [ -d model_repository/$$name ] || $(BIN)/ridgeline export $$artifact \
	        || { failed="$$failed $$name"; continue; }; \
	    made="$$made $$name"; \
	    case $$name in *_language) \
	        [ -d model_repository/$${name}_step ] \
	            || $(BIN)/ridgeline export $$artifact --stateful \
	            || failed="$$failed $${name}_step";; \
	    esac; \
	done; \
	echo "in model_repository/:$${made:- nothing}"; \
	[ -z "$$skipped" ] || echo "skipped, their data or packages are not here:$$skipped"; \
	[ -z "$$missed" ] || echo "missed what they ask before (remove artifacts/<name> to train anew):$$missed"; \
	[ -z "$$failed" ] || echo "failed:$$failed"; \
	[ -z "$$missed$$failed" ]

bench: $(INSTALLED) ## Measure the gateway beside bare ONNX Runtime, as ratios within one run
	$(BIN)/python -m loadtest.bench.closed_loop

measurement: $(INSTALLED) $(TRITON)/installed ## Measure gateway and Triton over networks of six decades of FLOPs
	$(BIN)/python -m loadtest.bench.campaign --again --output reports/measurement
	$(BIN)/ridgeline report reports/measurement/measurements.json --output reports/measurement/index.html

budget: $(INSTALLED) ## Hold this version to budgets.toml; AGAINST=REVISION compares with it
	$(BIN)/python -m loadtest.bench.networks reports/budget-models lenet5 cnn78 >/dev/null
	$(BIN)/ridgeline check --budgets budgets.toml --repository reports/budget-models \
	    --output reports/budget.json --markdown reports/budget.md --junit reports/budget.xml \
	    $(if $(AGAINST),--against $(AGAINST))

budget-proof: $(INSTALLED) ## Plant slowdowns into copies of the server and count which are caught
	$(BIN)/python -m loadtest.bench.budget_proof

bench-peers: $(INSTALLED) $(TRITON)/installed $(MOSEC)/installed ## Measure the gateway beside Triton and mosec, at ease and under overload
	$(BIN)/python -m loadtest.bench.closed_loop --models lenet5 --output reports/bench-peers.json \
	    --servers ridgeline,triton,triton-tuned,mosec
	$(BIN)/python -m loadtest.bench.overload

triton: $(TRITON)/installed ## Show that the real Triton serves model_repository/ with the same answers
	$(BIN)/python tests/triton/check.py $(TRITON) model_repository

conformance: $(INSTALLED) ## Compare the gateway's answers with the real Triton's, case by case, and write docs/conformance.md
	@$(MAKE) --no-print-directory $(TRITON)/installed || { \
	    echo "skipped: the wheel nvidia-pytriton cannot be had here, so there is no Triton to compare with"; exit 0; }; \
	[ ! -f $(TRITON)/installed ] || $(BIN)/python tests/triton/compare.py $(TRITON) --write

fuzz: $(INSTALLED) ## Fuzz the codecs, guided by coverage: ten minutes each
	for target in http_json http_binary grpc_request grpc_framing raw_tensor http2_frames; do \
	    $(BIN)/python tests/fuzz/codecs.py $$target -max_total_time=600 || exit 1; done

$(TRITON)/installed: requirements/triton.txt
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement requirements/triton.txt
	@touch $@

$(MOSEC)/installed: requirements/mosec.txt
	$(PYTHON) -m venv $(MOSEC)
	$(MOSEC)/bin/python -m pip install --quiet --no-deps --require-hashes --requirement requirements/mosec.txt
	@touch $@

lock: ## Resolve the versions of pyproject.toml anew into requirements/
	$(PYTHON) -m venv .lock-venv && .lock-venv/bin/python -m pip install --quiet uv
	.ci/lock .lock-venv/bin/uv
	rm -r .lock-venv

clean: ## Remove what the commands above made, except published models
	rm -rf $(VENV) artifacts build reports .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
