#!/bin/sh
# Looks the pinned versions up in the vulnerability databases.
#   audit.sh PIP-AUDIT LOCK...
# Exit code 0: none has a known weakness; 1: some have, a table says which; 2: no audit was made.
set -eu

audit=$1
shift
for lock; do
    set -- "$@" --requirement "$lock"
    shift
done

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
"$audit" --strict --require-hashes --disable-pip --progress-spinner off "$@" 2>"$errors" && code=0 || code=$?
cat "$errors" >&2
# pip-audit has one exit code for weaknesses that it found and for databases that it could not ask.
if grep -q '^ERROR\|Traceback' "$errors"; then
    printf 'audit: %s\n' "no audit was made, which says neither that there are weaknesses nor that there are none." \
        "It asks pypi.org for the advisories of each version; a mirror that has packages alone cannot answer." >&2
    exit 2
fi
exit "$code"
