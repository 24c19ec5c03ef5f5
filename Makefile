# make demo     a throw-away grid, server and session; nothing stays
# make run      the same server, kept in the foreground
# make test     everything the tests need, and the tests
# make test-lowest  whether the lowest versions that setup.cfg states work: a minute
# make test-faults  hundreds of kills, power cuts, slow disks: half an hour
# make test-ceph    what the daemon promises, again with its bytes in a real Ceph
# make test-memory  and in memory: what is left of it when nothing lasts
# make soak     half an hour of everything at once: what leaks? (SOAK=120 for two minutes)
# make scoreboard   every fault test, and what it showed, as one table
# make pictures the pages in docs/pictures, made anew; all others in build/pictures
# make lint     ruff, mypy and the news
# make wheel    the wheel, in dist/
# make share    the manual page and the shells' completions, made anew
# make check    all of it, as .ci/run does
# make clean    remove what these made
#
# On a Debian with nothing but Python 3.10 or newer.  As root, missing system
# packages are installed; otherwise what is missing is said.
# PYTHON names another interpreter, VENV another place for the environment,
# TESTS what to test:  make test TESTS=tests/test_config.py

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(PATH):/usr/sbin:/sbin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON ?= python3
VENV ?= .venv
TESTS ?=
SOAK ?= 1800
BIN := $(abspath $(VENV))/bin

# The Debian packages of the programs that the tests run.
TOOLS := globus-proxy-utils voms-clients nordugrid-arc-client davix curl strace \
         e2fsprogs rsync qemu-utils qemu-block-extra systemd zsh fish chromium openssl wget \
         logrotate haproxy squid igtf-policy-classic igtf-policy-mics igtf-policy-slcs igtf-policy-iota \
         igtf-policy-experimental igtf-policy-unaccredited \
         aria2 axel httpie lynx nbdkit nodejs rclone \
         ceph-common ceph-mon ceph-mgr ceph-osd radosgw s3cmd

# Those of them that Debian starts as services: the tests start their own, so these neither start
# when they are installed (policy-rc.d forbids it) nor with the machine.
SERVICES := haproxy squid radosgw

# What runs on every store.
STORED := tests/end_to_end tests/test_transfers.py tests/test_audit.py

.PHONY: help demo run test test-lowest test-faults test-ceph test-memory soak scoreboard pictures tools lint wheel share check clean
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.installed
	@$(BIN)/python demo/demo.py

run: $(VENV)/.installed
	@$(BIN)/python demo/demo.py --keep

test: $(VENV)/.installed-test tools
	@$(BIN)/python -m pytest $(TESTS)

test-lowest: $(VENV)/.installed-test
	@$(BIN)/python -m pytest tests/lowest

test-faults: $(VENV)/.installed-test tools
	@$(BIN)/python -m pytest tests/faults

test-ceph test-memory: $(VENV)/.installed-test tools
	@REPOMAN_TEST_STORE=$(@:test-%=%) $(BIN)/python -m pytest $(STORED)

soak: $(VENV)/.installed-test tools
	@$(BIN)/python -m tests.faults.soak --seconds $(SOAK)

scoreboard: $(VENV)/.installed-test tools
	@$(BIN)/python -m tests.scoreboard

pictures: $(VENV)/.installed-test tools
	@REPOMAN_PICTURES=build/pictures $(BIN)/python -m pytest tests/pages/test_access.py

lint: $(VENV)/.installed-test $(VENV)/.installed-lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest --collect-only --quiet tests/faults > /dev/null  # still importable
	@$(BIN)/towncrier build --draft --version next > /dev/null

wheel: $(VENV)/.installed
	@rm -rf build dist
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

share: $(VENV)/.installed
	@$(BIN)/repoman help --man > share/man/man1/repoman.1
	@$(BIN)/repoman completion bash > share/bash-completion/completions/repoman
	@$(BIN)/repoman completion zsh > share/zsh/site-functions/_repoman
	@$(BIN)/repoman completion fish > share/fish/vendor_completions.d/repoman.fish

check:
	@.ci/run

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis

# Installed once, and again when the metadata changes.
$(VENV)/.installed: $(VENV)/.made setup.cfg pyproject.toml
	@echo "Installing Repoman and what it needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --use-pep517 --editable .
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	@echo "Installing what '$*' needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --use-pep517 --editable '.[$*]'
	@touch $@

# Debian keeps what venv needs in a package of its own.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Repoman needs Python 3.10 or newer; name one with: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || $(call install,python3-venv)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Without root the tests that need a missing tool say so and are skipped.
tools:
	@missing=; \
	for tool in $(TOOLS); do \
	    [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$tool 2> /dev/null)" = installed ] || \
	        missing="$$missing $$tool"; \
	done; \
	[ -z "$$missing" ] || [ "$$(id -u)" != 0 ] || $(call install,$$missing); \
	[ -z "$$missing" ] || [ "$$(id -u)" = 0 ] || \
	    echo "Not installed, so some tests will be skipped:$$missing" >&2

# $(call install,PACKAGES): as root, by apt; else say what to do and fail.
define install
{ if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
    echo "Installing $(1) ..."; \
    if [ ! -e /usr/sbin/policy-rc.d ]; then \
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
    fi; \
    apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(1) \
        < /dev/null > /dev/null && \
    for service in $(SERVICES); do case " $(1) " in *" $$service "*) \
        ! command -v systemctl > /dev/null || systemctl --quiet disable $$service 2> /dev/null || true;; \
    esac; done; \
else \
    echo "Please install $(1) first: sudo apt install $(1)" >&2; exit 1; \
fi; }
endef
