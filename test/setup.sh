#!/usr/bin/env bash
# Makes sure that this machine has what the tests need beyond Go and git. On
# Debian, as root, it installs what is missing; elsewhere it says what is
# missing and how to get it, and fails: a test that cannot run is not a pass.
# KEYGATE_TEST_FULL adds what only the heavier suites need.
set -euo pipefail

full=${KEYGATE_TEST_FULL:-}
missing=()  # what, for people
packages=() # Debian's names for it

# need WHAT PACKAGES COMMAND...: if the command fails, PACKAGES are needed.
need() {
	local what=$1 debian=$2
	shift 2
	"$@" && return
	missing+=("$what")
	read -ra names <<<"$debian"
	packages+=("${names[@]}")
}

has() { command -v "$1" >/dev/null; }

has_redis() { has redis-server && has redis-sentinel; }

has_testssl() { has testssl || has testssl.sh; }

has_node() {
	local version
	version=$(node -p 'process.versions.node' 2>/dev/null) && [[ $(printf '%s\n' 20.19 "$version" | sort -V | head -n 1) == 20.19 ]]
}

# The race detector links with C: the compiler alone, without the C library's
# headers, is not enough.
compiles_c() {
	local cc out code=0
	read -ra cc <<<"$(go env CC)" # may carry flags
	out=$(mktemp)
	printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' |
		"${cc[@]}" -x c -o "$out" - >/dev/null 2>&1 || code=$?
	rm -f "$out"
	return "$code"
}

if ! has go; then
	echo "Go is missing: install the version that go.mod names, or a later one, and put it on the PATH." >&2
	exit 1
fi

check() {
	missing=()
	packages=()
	need "git" "git" has git
	need "curl, for the lines that people paste" "curl" has curl
	need "node 20.19 or later, which plays the API in the README's tour and runs OpenAI's client and what holds the management API to its description" "nodejs" has_node
	need "npm, which installs the latter two" "npm" has npm
	need "redis-server and redis-sentinel, for the tests of what keygate keeps in Redis" "redis-server redis-sentinel" has_redis
	need "a C compiler with the C library's headers, for the race detector" "gcc libc6-dev" compiles_c
	[[ -z $full ]] || need "testssl.sh, which judges the TLS of both listeners" "testssl.sh" has_testssl
}

tell() {
	printf 'The tests need what this machine does not have:\n' >&2
	printf '  - %s\n' "${missing[@]}" >&2
	cat >&2 <<-END
		Install it and try again:
		  Debian, Ubuntu  sudo apt-get install ${packages[*]}
		  Fedora          sudo dnf install git curl nodejs npm gcc glibc-devel redis${full:+ testssl}
		  Alpine          apk add git curl nodejs npm gcc musl-dev redis${full:+ testssl.sh}
		  macOS           xcode-select --install; brew install node redis${full:+ testssl}
	END
	exit 1
}

install() { DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}"; }

check
if ((${#missing[@]})); then
	if ! has apt-get || [[ $(id -u) != 0 ]]; then
		tell
	fi
	printf 'Installing %s\n' "${packages[*]}" >&2
	# The package lists of an image are often absent or too old to download by.
	install >/dev/null 2>&1 || { apt-get update -qq >&2 && install >&2; } || tell
	check
	((${#missing[@]} == 0)) || tell
fi

# What test/openapi and test/openai run comes from npm, in the versions of their
# lock files, and again whenever one has changed. No package has a script that it
# would run.
cd "$(dirname "$0")"
for dir in openapi openai; do
	cmp -s "$dir/package-lock.json" "$dir/node_modules/.installed-lock.json" && continue
	echo "Installing the packages of test/$dir" >&2
	if ! said=$(cd "$dir" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier 2>&1); then
		printf 'npm cannot install the packages of test/%s, without which a test cannot run:\n%s\n' "$dir" "$said" >&2
		exit 1
	fi
	cp "$dir/package-lock.json" "$dir/node_modules/.installed-lock.json"
done
