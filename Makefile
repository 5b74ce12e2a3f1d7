# What can be done here; 'make' alone lists it. Everything works on a fresh
# Debian machine with Go, as root or not, and offline once it has run.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

FUZZTIME ?= 60s

# A checkout that git refuses to read (another owner's, or no git at all) is
# built without a version stamp instead of not at all.
STAMP := $(shell git rev-parse HEAD >/dev/null 2>&1 || echo -buildvcs=false)

.PHONY: help demo build check test bench soak fuzz deps fmt vet

help: ## list what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

demo: build ## play the story: an injected mail, a bank, and the gateway between (needs Go only)
	@./bin/bailiwick demo

build: ## build the static binary bin/bailiwick
	@CGO_ENABLED=0 go build $(STAMP) -trimpath -o bin/bailiwick ./cmd/bailiwick

check: fmt vet ## the quick loop: format, vet, layers, unit tests with -race; no npm
	@go test -race -short ./...

test: deps fmt vet ## everything, end-to-end tests included; installs what is missing
	@go test -race -timeout 20m ./...
	@# With the race detector it replays a sample and compares nothing.
	@go test ./test/traces

bench: ## engine against cedar, the gateway against none, us beside OPA, Cerbos and OpenFGA (built once, 15 min)
	@go test -run '^$$' -bench . -benchmem ./bench
	@go run ./bench/peers

soak: deps ## the long forms of the random and crash tests
	@BAILIWICK_SOAK=1 go test -timeout 5h -count 1 -v -run 'Soak|Random|Differential|Crash|Kill' ./...

fuzz: ## every fuzz target for FUZZTIME=60s
	@.ci/fuzz $(FUZZTIME)

deps: ## install what the end-to-end tests need: gcc and npm from Debian, the rest from npm
	@.ci/deps

fmt:
	@files=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go' -not -path '*/node_modules/*')); \
	if [ -n "$$files" ]; then printf 'not formatted, run gofmt -w on:\n%s\n' "$$files" >&2; exit 1; fi

vet:
	@go vet ./...
