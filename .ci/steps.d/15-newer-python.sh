#!/usr/bin/env bash
# The newest Python of this machine that is not the one of the tests: the demo, and the tests of what changes from one
# Python to the next (the event loop, databases, warnings, processes).
set -euo pipefail

newest() { # the programs named python3.12 and later, on the path or kept by pyenv; the highest version first
    local program
    for program in python3.{20..12} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3.{20..12}; do
        if "$program" --version >/dev/null 2>&1; then
            "$program" -c 'import sys; print("%d %s" % (sys.version_info[1], sys.executable))'
        fi
    done | sort -rn | head -n 1
}

tested=$(.venv/bin/python -c 'import sys; print(sys.version_info[1])')
read -r version program <<<"$(newest)"
if [ -z "${program:-}" ] || [ "$version" -le "$tested" ]; then
    echo "left out: there is no Python newer than 3.$tested on this machine"
    exit 0
fi
if ! make setup VENV=.venv-newer PYTHON="$program"; then
    echo "left out: what is pinned cannot be installed for Python 3.$version here"
    exit 0
fi
.venv-newer/bin/coterie demo
.venv-newer/bin/pytest -q -n auto \
    tests/unit/delivery tests/unit/storage tests/unit/transport tests/unit/identity \
    tests/unit/client/test_client.py tests/unit/client/test_blocking.py tests/unit/client/test_listening.py \
    tests/services/test_authentication.py tests/services/test_delivery.py \
    tests/scenario/test_life_of_a_group.py tests/scenario/test_readme.py
