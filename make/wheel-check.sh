#!/bin/sh
# Builds the wheel of the last commit in two directories with different names, umasks and time zones, and compares.
#   wheel-check.sh PYTHON
set -eu

python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { # NAME UMASK TIME-ZONE
    mkdir "$work/$1"
    git archive HEAD | (umask "$2" && cd "$work/$1" && tar -xf - &&
        TZ=$3 "$python" -m hatchling build --target wheel >build.log 2>&1 ||
        { cat build.log >&2; exit 1; })
}

build first 022 UTC
build another-name 077 Asia/Kathmandu
"$python" - "$work"/*/dist/*.whl <<'PY'
import hashlib
import pathlib
import sys

wheels = [pathlib.Path(name) for name in sys.argv[1:]]
digests = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels]
for wheel, digest in zip(wheels, digests, strict=True):
    print(digest, wheel.name)
if len(wheels) != 2 or digests[0] != digests[1]:
    sys.exit("wheel-check: the two builds differ")
print("wheel-check: both builds are the same, byte for byte")
PY
