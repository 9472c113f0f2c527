#!/usr/bin/env bash
# Interop for every change: ts-mls is built if Node.js is here, the others play if they were built before.
# Every scenario in the suites 1 to 3 with us on either side, and random histories of all of them together.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
peers=(coterie)
if [ "$($python interop/peers/build.py --check ts-mls)" = "ts-mls: built" ] ||
    $python interop/peers/build.py ts-mls; then
    peers+=(ts-mls)
else
    echo "interop: ts-mls is left out, see above" >&2
fi
for name in openmls mls-rs bouncy-castle; do
    state=$($python interop/peers/build.py --check "$name")
    if [ "$state" = "$name: built" ]; then peers+=("$name"); else echo "$state; left out"; fi
done
exec .venv/bin/coterie interop run "${peers[@]}" --around coterie --suite 1 --suite 2 --suite 3 \
    --histories "${INTEROP_HISTORIES:-12}" --steps "${INTEROP_STEPS:-50}" --lanes 2 \
    --json build/interop-quick.json
