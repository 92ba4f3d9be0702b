# make help lists the targets. Each sets up .venv by itself; nothing has to be done before it.
PYTHON ?= python3
PRESET ?= sample
BIN := .venv/bin
RUN = $(BIN)/python -m histopath run --preset $(PRESET) $(if $(DATA),--data "$(DATA)") $(if $(EPOCHS),--epochs $(EPOCHS)) \
	$(if $(WEIGHTS),--weights "$(WEIGHTS)")
OTHER_RUNS = xception_nasnet simple_cnn resnet50v2 inceptionv3 xception_mobilenetv2 densenet121 gastric-simple_cnn \
	gastric-resnet50v2 organs-organ organs-malignancy organs-organ-and-malignancy fold1 fold2 fold3 fold4 fold5 folds.csv

.DEFAULT_GOAL := help
.PHONY: help setup run systems test test-fast test-environments nbval nbval-123459 nbval-678 bench notebooks docs html demo clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14
	@echo "  options of make run: PRESET=sample|full  DATA=FOLDER  EPOCHS=n  WEIGHTS=imagenet|none|FILE"

setup: .venv/ready ## the environment alone

run: .venv/ready ## run the notebooks: figures, trained ensemble, submission
	$(RUN)

systems: .venv/ready ## run the notebooks on the other systems: 06 compares, 07 gastric slices, 08 organs
	$(BIN)/python -m histopath run --only 06_compare --only 07_gastric --only 08_organs

test: test-style .venv/ready-dev ## everything that must hold: ruff, pytest, nbval
	$(BIN)/python -m pytest -n 2 --dist loadfile
	$(MAKE) --no-print-directory nbval

test-fast: test-style .venv/ready-dev ## ruff and the tests that take no more than seconds each
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-style: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test-environments: .venv/ready ## the quick tests, a training and the kernel with the versions of Kaggle and Colab
	$(BIN)/python environments/check.py $(ENVIRONMENTS)

nbval: .venv/ready-dev ## run the committed notebooks and compare every output: two chains, each in a home of its own
	$(MAKE) --no-print-directory -j2 --output-sync nbval-123459 nbval-678

nbval-123459 nbval-678: nbval-%: .venv/ready-dev # 04, 05 and 09 open the run that 03 trains
	rm -rf build/nbval-$* && mkdir -p build/nbval-$*
	HISTOPATH_HOME="$(CURDIR)/build/nbval-$*" $(BIN)/python -m pytest --nbval --nbval-cell-timeout=7200 -p no:cacheprovider notebooks/0[$*]_*.ipynb

bench: .venv/ready ## time every stage against the classic notebook and a careful one
	$(BIN)/python benchmarks/bench.py

notebooks: .venv/ready ## refresh the committed notebooks and the figures in assets/examples/
	rm -rf build/notebooks && mkdir -p build/notebooks
	HISTOPATH_HOME="$(CURDIR)/build/notebooks" $(BIN)/python -m histopath run --in-place --all
	rm -rf $(addprefix assets/examples/,sample sample-gastric sample-organs) && cp -r build/notebooks/assets/. assets/examples

docs: .venv/ready ## write docs/commands.md from the help of the command line
	$(BIN)/typer histopath/__main__.py utils docs --name "python -m histopath" --output docs/commands.md

html: .venv/ready ## the committed notebooks as web pages, in build/html
	$(BIN)/jupyter nbconvert --to html --output-dir build/html notebooks/[0-9]*.ipynb

demo: .venv/ready ## a web page on which a patch or a larger image is read
	$(BIN)/python -m histopath demo

clean: ## remove what the targets above wrote, but not .venv
	rm -rf build assets/sample assets/sample-gastric assets/sample-organs data/sample data/sample-gastric data/sample-organs data/sample-slide data/packed runs/sample $(addprefix runs/sample-,$(OTHER_RUNS)) runs/notebooks submission/sample_submission.csv

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  (echo "Python 3.11, 3.12 or 3.13 is needed (TensorFlow has no other wheels); name it, as in: make PYTHON=python3.12"; exit 1)
	@test "$$(uname -sm)" != "Darwin x86_64" || \
	  (echo "TensorFlow has no wheels for Macs with an Intel processor; use a Mac with Apple silicon, or Linux"; exit 1)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
