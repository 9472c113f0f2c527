#!/bin/sh
# Creates a virtual environment and installs a lock file into it, hashes checked.
#   setup.sh VENV LOCK [--editable]      with --editable, the project itself too
# PYTHON names the interpreter to use; without it, the first of the usual names that is new enough.
set -eu

venv=$1
lock=$2
editable=${3:-}

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null 2>&1 || fail "PYTHON=$PYTHON is not a program on this machine."
        new_enough "$PYTHON" || fail "PYTHON=$PYTHON is older than Python 3.11, which Coterie needs."
        return
    fi
    for PYTHON in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$PYTHON" >/dev/null 2>&1 && new_enough "$PYTHON"; then
            return
        fi
    done
    if command -v python3 >/dev/null 2>&1; then
        fail "Coterie needs Python 3.11 or later; python3 is $(python3 --version 2>&1)." \
            "Install a newer one and, if it has another name, run: make setup PYTHON=/path/to/python3"
    fi
    fail "There is no python3 on this machine. Install Python 3.11 or later" \
        "(Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python)."
}

# Installing through a link would point another checkout's environment at this one.
[ ! -L "$venv" ] || fail "$venv is a symbolic link; remove it, so that this checkout gets its own."

if ! new_enough "$venv/bin/python"; then
    find_python
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$PYTHON has no venv module (Debian, Ubuntu: apt install python3-venv)."
    printf 'Creating %s with %s ...\n' "$venv" "$("$PYTHON" --version)"
    "$PYTHON" -m venv --clear "$venv" || fail "$PYTHON -m venv failed; the reason stands above."
fi

printf 'Installing %s into %s (the first time: one to three minutes) ...\n' "$lock" "$venv"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# The lock names everything, so nothing is left to resolve. An older pip that resolves all the same asks the index for
# packages that another one names with an extra, takes the newest and finds no hash for it.
"$venv/bin/python" -m pip install --quiet --no-deps --require-hashes --requirement "$lock" ||
    fail "pip could not install $lock; the reason stands above. It needs a package index that it can reach."
if [ "$editable" = "--editable" ]; then
    "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable . ||
        fail "pip could not install the project itself; the reason stands above."
fi
"$venv/bin/python" -m pip check >/dev/null ||
    fail "$lock lacks something that its packages need: run $venv/bin/python -m pip check, then make lock."
touch "$venv/.stamp"
