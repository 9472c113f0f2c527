#!/usr/bin/env bash
# Interop for every change: ts-mls is built if Node.js is here, the others play if they were built before.
# Every scenario in the suites 1 to 3 with us on either side. Random histories are of us and ts-mls: a peer that is wrong
# once spoils what comes after it in a history, and that must not look like a fault of ours (docs/interop.md has them all).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
own=(coterie)
if [ "$($python interop/peers/build.py --check ts-mls)" = "ts-mls: built" ] ||
    $python interop/peers/build.py ts-mls; then
    own+=(ts-mls)
else
    echo "interop: ts-mls is left out, see above" >&2
fi
others=(coterie)
for name in openmls mls-rs bouncy-castle; do
    state=$($python interop/peers/build.py --check "$name")
    if [ "$state" = "$name: built" ]; then others+=("$name"); else echo "$state; left out"; fi
done
.venv/bin/coterie interop run "${own[@]}" --around coterie --suite 1 --suite 2 --suite 3 \
    --histories "${INTEROP_HISTORIES:-12}" --steps "${INTEROP_STEPS:-50}" --lanes 2 \
    --json build/interop-quick.json
if [ "${#others[@]}" -gt 1 ]; then
    .venv/bin/coterie interop run "${others[@]}" --around coterie --suite 1 --suite 2 --suite 3 \
        --histories 0 --lanes 2 --json build/interop-others.json
fi
