#!/usr/bin/env bash
# Lists our Go files, NUL-separated, below the repository's root: not those that
# npm packages bring along, nor the deliberately odd ones of tests.
set -euo pipefail
cd "$(dirname "$0")/.."
find . \( -name node_modules -o -name testdata -o -name vendor -o -name '.?*' \) -prune -o -type f -name '*.go' -print0
