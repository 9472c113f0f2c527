#!/usr/bin/env bash
# Interop for every change, within fifteen minutes: four for builds, six for scenarios, three for random histories.
# Peers whose toolchain is here are built; what is missing, or takes too long, is said and left out, and is no failure.
# Every scenario in every suite that both have, with us on either side. Random histories are of us and ts-mls: a peer that
# is wrong once spoils what comes after it in a history, and that must not look like a fault of ours (docs/interop.md has
# histories of all).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
coterie=.venv/bin/coterie
peers=()
seconds=${INTEROP_BUILD_SECONDS:-240}
for name in ts-mls bouncy-castle openmls mls-rs; do
    left=$((seconds - SECONDS))
    if [ "$($python interop/peers/build.py --check "$name")" = "$name: built" ]; then
        peers+=("$name")
    elif [ "$left" -gt 0 ] && timeout --kill-after=5 "$left" "$python" interop/peers/build.py "$name"; then
        peers+=("$name")
    else
        echo "interop: $name is left out; see above, or build it with: make interop-peer-$name"
    fi
done
echo "interop: playing with ${peers[*]:-nobody but ourselves}"
failed=0
$coterie interop run coterie "${peers[@]}" --around coterie --lanes 2 --minutes "${INTEROP_MINUTES:-6}" \
    --json build/interop-quick.json || failed=1
own=(coterie)
case " ${peers[*]:-} " in *" ts-mls "*) own+=(ts-mls) ;; esac
$coterie interop run "${own[@]}" --scenario none --histories "${INTEROP_HISTORIES:-12}" \
    --steps "${INTEROP_STEPS:-250}" --lanes 2 --minutes 3 --json build/interop-histories.json || failed=1
if [ "${#peers[@]}" -gt 0 ]; then
    $coterie interop vectors --suite 1 --suite 2 "${peers[@]/#/--peer=}" || failed=1
fi
echo "interop: $SECONDS seconds"
exit "$failed"
