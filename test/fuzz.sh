#!/usr/bin/env bash
# Runs every fuzz target of the repository for a while: test/fuzz.sh [10s]
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-10s}

# go test -list prints the targets of a package, then a line "ok <package> …".
listing=$(go test -vet=off -list '^Fuzz' ./...)
targets=()
names=()
while read -r first second _; do
	case $first in
	Fuzz*) names+=("$first") ;;
	ok)
		for name in "${names[@]}"; do targets+=("$second $name"); done
		names=()
		;;
	esac
done <<<"$listing"

if ((${#targets[@]} == 0)); then
	echo "no fuzz targets found" >&2
	exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in "${targets[@]}"; do
	read -r package name <<<"$target"
	printf '== %s %s for %s\n' "$package" "$name" "$time"
	if go test -vet=off -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$package" >"$log" 2>&1; then
		tail -n 2 "$log"
		continue
	fi
	# Until Go 1.27 the fuzzing engine sometimes reports the end of its own time as
	# a failure (go.dev/issue/75804). A real one names the input, or is a panic.
	if grep -qxE ' +context deadline exceeded' "$log" && ! grep -qE 'Failing input written|panic:|fatal error:|hung or terminated' "$log"; then
		echo "ok, stopped at its deadline"
		continue
	fi
	cat "$log"
	exit 1
done
printf '%d fuzz targets passed\n' "${#targets[@]}"
