# Every target works in a fresh clone. What each needs beyond Go is checked, and
# on Debian installed, by test/setup.sh.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X keygate/internal/cli.version=$(VERSION)
FUZZTIME ?= 10s

.PHONY: help
help: ## Say what each target does (the default)
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1|\2/p' Makefile | while IFS='|' read -r target what; do printf '%-13s %s\n' "$$target" "$$what"; done

.PHONY: run
run: ## Run the gateway; without configuration it uses an embedded store and a demonstration upstream
	go run .

.PHONY: build
build: ## Build the static binary bin/keygate; VERSION=… overrides what git says
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/keygate .

.PHONY: test
test: check ## Check form and vet, then run all tests under the race detector
	CGO_ENABLED=1 go test -race -vet=off -timeout 10m ./...

.PHONY: test-full
test-full: export KEYGATE_TEST_FULL := 1
test-full: check ## The same with the heavier suites, then every fuzz target for FUZZTIME (10s)
	CGO_ENABLED=1 go test -race -vet=off -timeout 60m ./...
	test/fuzz.sh $(FUZZTIME)

# The parts of test that need no compiled tests; what fails soonest comes first.
.PHONY: check
check:
	test/setup.sh
	@unformatted=$$(test/gofiles.sh | xargs -0 gofmt -l); \
	if [[ -n $$unformatted ]]; then printf 'not formatted, run make fmt:\n%s\n' "$$unformatted" >&2; exit 1; fi
	go mod tidy -diff
	go -C tools mod tidy -diff
	CGO_ENABLED=1 go vet -race ./... # with -race, so that the tests find everything built

.PHONY: lint
lint: tools ## Run staticcheck and gofumpt over everything
	@unformatted=$$(test/gofiles.sh | xargs -0 bin/gofumpt -l); \
	if [[ -n $$unformatted ]]; then printf 'not in gofumpt form, run make fmt:\n%s\n' "$$unformatted" >&2; exit 1; fi
	bin/staticcheck ./...

.PHONY: fmt
fmt: tools ## Rewrite all Go files in gofumpt form
	test/gofiles.sh | xargs -0 bin/gofumpt -w

.PHONY: bench
bench: ## Measure the gateway on this machine
	go run ./test/bench

# As it is shipped and without the race detector, which would make the clients the
# slowest part. It takes six minutes.
.PHONY: proof
proof: ## Put the limits to the test from outside, with real gateways, Redis and faults, and print what came out
	KEYGATE_TEST_PROOF=1 go test -count=1 -timeout 15m -v ./test/proof | grep -v '^=== '

.PHONY: tools
tools:
	@go -C tools build -o ../bin/ tool
