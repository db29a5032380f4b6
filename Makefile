# `make demo` and `make test` do everything on a machine that has Python, make and a package index.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# One intra-op thread per process: OpenMP's spinning threads collapse on shared cores.
export OMP_NUM_THREADS ?= 1

DEMO_SECONDS ?= 30
DEMO_ARGS    ?=

.PHONY: help demo test lint format bench load gpu study fuzz faults soak train-demo screenshot sbom audit clean

help:
	@echo "make demo    watch split detection work on this machine ($(DEMO_SECONDS) s; DEMO_SECONDS=N, DEMO_ARGS='--source ...')"
	@echo "make test    run the test suite (COVERAGE=1: and tell which lines no test runs)"
	@echo "make lint    ruff, ruff format --check, mypy --strict, oxlint for the page"
	@echo "make bench   time the codec, its share of the network, and zlib and zstd beside it"
	@echo "make load    how many streams a detector holds here, and what each frame costs it"
	@echo "make gpu     whether a CUDA card computes what the CPU does, how fast, and how many streams it holds"
	@echo "make study   reproduce the paper's tables and figures (STUDY_ARGS='--data images/ --clip clip.mp4')"
	@echo "make fuzz    feed hostile bytes to every parser and decoder, and payloads to their kernels (MINUTES=$(MINUTES) each)"
	@echo "make faults  do every fault to a camera, a detector and a consumer, and write what came of it"
	@echo "make soak    leave cameras and a detector alone among faults (MINUTES=$(MINUTES)) and see what grows"
	@echo "make train-demo   train the embedded network again, from COCO images and a teacher (DATA, TEACHER)"
	@echo "make sbom    list what an installation holds, with versions and licenses, as CycloneDX ($(SBOM))"
	@echo "make audit   whether a known vulnerability is in it, where the package index can be asked"
	@echo "make screenshot   take the README's picture of the live page"

# What camera, detector and demo need, and all that tests need besides: torch is most of it. Python compiles what is
# imported, and not all that is installed, for which pip would take twelve seconds.
$(VENV)/.base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	touch $@

$(VENV)/.all: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: $(VENV)/.base
	$(BIN)/splitcast demo --seconds $(DEMO_SECONDS) $(DEMO_ARGS)

# Side by side on all cores (tests/conftest.py), in up to this many workers, each of which takes about 2 GB.
TEST_WORKERS ?= 4
TEST_ARGS    ?=

PYTEST        = pytest -n logical --maxprocesses $(TEST_WORKERS) --dist worksteal $(TEST_ARGS)

# COVERAGE=1 tells which lines no test runs, and fails where fewer run than pyproject.toml says.
test: $(VENV)/.all
ifdef COVERAGE
	$(BIN)/coverage erase
	$(BIN)/coverage run -m $(PYTEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
else
	$(BIN)/python -m $(PYTEST)
endif

lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/oxlint --deny-warnings services

format: $(VENV)/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.all
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-columns=median,iqr,rounds --benchmark-sort=name
	$(BIN)/python -m tests.benchmarks.footprint

# On a quiet machine: it writes what it measured beside what others measured.
LOAD_ARGS ?=

load: $(VENV)/.all
	$(BIN)/splitcast bench load --streams 1,2,4,8,16,32 --out docs/results/load.json --table docs/results/load.md $(LOAD_ARGS)
	$(BIN)/splitcast bench load --streams 8,16 --tails 1 --out docs/results/load-one-tail.json --table docs/results/load-one-tail.md $(LOAD_ARGS)

# Takes under eight minutes. GPU_ARGS='--device cpu ...' shows that it works where there is no card.
GPU_ARGS ?=

gpu: $(VENV)/.all
	$(BIN)/splitcast bench device --out docs/results/gpu.json --table docs/results/gpu.md $(GPU_ARGS)

STUDY_OUT  ?= study
STUDY_ARGS ?= --quick

study: $(VENV)/.all
	$(BIN)/splitcast study all --out $(STUDY_OUT) $(STUDY_ARGS)

# What it finds, and the inputs that it grew, are in .fuzz afterwards.
MINUTES ?= 10

fuzz: $(VENV)/.all
	$(BIN)/python -m pip install --quiet --editable '.[test,fuzz]'
	$(BIN)/python -m tests.fuzz.run --minutes $(MINUTES)
	$(BIN)/python -m tests.fuzz.kernels --minutes $(MINUTES)

# One at a time, as it measures how long each takes; tells which bounds are not kept.
faults: $(VENV)/.all
	FAULTS_TABLE=docs/results/faults.md $(BIN)/python -m pytest tests/faults tests/services/detector/test_stopped_detector.py -m "patient or not patient" $(TEST_ARGS)

# Random faults for so long; beside it sessions and sources are lost and found so often.
RECONNECTS ?= 1000

soak: $(VENV)/.all
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --sessions $(RECONNECTS) --sources $(RECONNECTS) --out docs/results/soak.json

# Needs COCO images with labels, clips and the official yolov5n.pt, which do not come with the project.
DATA    ?= $(SPLITCAST_SHARED)/data
TEACHER ?= $(DATA)/weights/yolov5n.pt

train-demo: $(VENV)/.all
	@test -d "$(DATA)" || { echo "make train-demo DATA=FOLDER, with coco/, clips/ and weights/"; exit 2; }
	$(BIN)/python -m services.training --data $(DATA) --teacher $(TEACHER)
	$(BIN)/python -m services.training.assess $(DATA)/coco/images/val2017
	$(BIN)/python -m services.training.scenes

screenshot: $(VENV)/.all
	$(BIN)/python -m tests.services.screenshot docs/images/live.png

# Of a plain installation, in an environment that holds nothing else.
SBOM      ?= dist/splitcast.cdx.json
SBOM_VENV ?= .venv-plain

sbom: $(VENV)/.all
	$(MAKE) --no-print-directory VENV=$(SBOM_VENV) $(SBOM_VENV)/.base
	mkdir -p $(dir $(SBOM))
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file $(SBOM) $(SBOM_VENV)/bin/python

audit: $(VENV)/.all
	$(BIN)/python -m tests.deploy.audit

clean:
	rm -rf $(VENV) .venv-* .fuzz .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .benchmarks .hypothesis build dist *.egg-info
