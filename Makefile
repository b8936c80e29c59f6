# The repository's tasks; `make help` lists them. Tools are pinned in tools/*.mod and built
# once into bin/; nothing here needs a network beyond the Go module proxy and, for missing
# Debian packages, apt.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# Static binaries with the version of the commit; -buildvcs=false because CI may own the
# tree with another user, which makes git refuse to answer the go command.
VERSION := $(shell git describe --tags --always --dirty --match 'v*' 2>/dev/null || echo unknown)
GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false
TOOLBUILD := GOFLAGS= CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w'

PROTO_TOOLS := bin/buf bin/protoc-gen-go bin/protoc-gen-go-grpc bin/protoc-gen-grpc-gateway bin/protoc-gen-openapiv2
LINT_TOOLS := bin/golangci-lint
TEST_TOOLS := bin/gotestsum bin/benchstat

# Groups for `make test`, comma-separated; the table is in tools/test.sh.
GROUPS := all
# How often `make bench` runs each benchmark: benchstat wants at least six for a confidence interval, the goals are on medians of 7.
BENCH_COUNT := 7
# The package pattern and the name pattern of `make bench`.
BENCH_PKGS := ./...
BENCH := .

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## static binaries bin/hotspare, bin/hotspare-coordinator, bin/hotspare-agent
	$(GOBUILD) -ldflags='-s -w -X main.version=$(VERSION)' -o bin/hotspare ./cmd/hotspare
	$(GOBUILD) -ldflags='-s -w -X main.version=$(VERSION)' -o bin/hotspare-coordinator ./cmd/coordinator
	$(GOBUILD) -ldflags='-s -w -X main.version=$(VERSION)' -o bin/hotspare-agent ./cmd/agent

.PHONY: unit
unit: $(TEST_TOOLS) ## the quick tests: no real parts, no root, no packages to install
	tools/test.sh unit

.PHONY: test
test: ## everything, after setting this machine up; GROUPS=unit,lint selects
	tools/test.sh --setup '$(GROUPS)'

.PHONY: demo
demo: build ## the whole story on this machine, told while it runs; KEEP=1 leaves it running; HOTSPARE_DEMO=sim needs no root
	tools/demo.sh

# Cycles of the simulation; a seed that fails prints the line that repeats it.
CYCLES := 3000
SOAK_CYCLES := 100000

.PHONY: sim
sim: ## the strict simulation; CYCLES=3000
	go test -count=1 -timeout=30m ./internal/simulation -run 'TestSimulation$$' -v -cycles=$(CYCLES)

.PHONY: soak
soak: ## a million sites against the oracle, the mutants, the strict simulation for hours with its table; SOAK_CYCLES=100000
	go test -count=1 -timeout=2h ./internal/placement/proof -cases=1000000
	go test -count=1 -timeout=1h ./internal/placement/proof -run 'TestMutants$$' -mutants
	go test -count=1 -timeout=24h ./internal/simulation -run 'TestSimulation$$' -v -cycles=$(SOAK_CYCLES)

.PHONY: e2e
e2e: ## end to end: the whole story and the bad luck, on real parts; needs root
	tools/test.sh --setup e2e

# How often `make chaos` goes through all of it.
CHAOS_ROUNDS := 3

.PHONY: chaos
chaos: ## kills and broken parts on real VMs, again and again; needs root; CHAOS_ROUNDS=3 (CI runs one)
	tools/setup.sh base libvirt network monitoring
	HOTSPARE_CI=1 go test -count=$(CHAOS_ROUNDS) -failfast -timeout=4h -v ./e2e -run 'TestBadLuck$$|TestWholeStoryWithKills$$'

.PHONY: bench
bench: $(TEST_TOOLS) ## benchmarks in benchstat format, and the guarantee's figures with their goals; BENCH=name BENCH_PKGS=./internal/x BENCH_COUNT=7
	mkdir -p build
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCH_COUNT) $(BENCH_PKGS) >build/bench.txt \
		|| { cat build/bench.txt; exit 1; }
	bin/benchstat build/bench.txt
	go run -buildvcs=false ./bench/goals build/bench.txt

# Which figures `make figures` measures, and how many rounds of each kind: the goals are on medians of at least 7.
FIGURES := declare,dev,leader,failover
ROUNDS := 7

.PHONY: figures
figures: build ## what docs/figures.md lists, each beside its limit of the same run; FIGURES=failover ROUNDS=7
	[[ '$(FIGURES)' != *leader* && '$(FIGURES)' != *failover* ]] || tools/setup.sh base libvirt network
	go build -buildvcs=false -o bin/figures ./bench/figures
	bin/figures -rounds '$(ROUNDS)' -only '$(FIGURES)' -out build/figures.txt

# Where `make install` puts things: DESTDIR=/tmp/x for a package.
DESTDIR :=
PREFIX := /usr

.PHONY: install
install: build ## programs, units, example configuration and completion below DESTDIR
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d \
		$(DESTDIR)$(PREFIX)/lib/tmpfiles.d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)/etc/hotspare
	install -m 0755 bin/hotspare bin/hotspare-coordinator bin/hotspare-agent $(DESTDIR)$(PREFIX)/bin
	install -m 0644 deploy/systemd/*.service $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 0644 deploy/sysusers.d/hotspare.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d
	install -m 0644 deploy/tmpfiles.d/hotspare.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	for f in deploy/etc/*.yaml; do \
		[ -e $(DESTDIR)/etc/hotspare/$${f##*/} ] || install -m 0640 $$f $(DESTDIR)/etc/hotspare; done
	bin/hotspare completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/hotspare

# What a release is: a tree to unpack at /, with its checksum. The same commit gives the same bytes.
RELEASE := hotspare-$(VERSION)-linux-$(shell go env GOARCH)

.PHONY: release
release: ## build/hotspare-VERSION-linux-ARCH.tar.gz with programs, units and examples, and its SHA-256
	rm -rf build/release
	umask 022 && $(MAKE) install DESTDIR=build/release/$(RELEASE)
	install -d build/release/$(RELEASE)/usr/share/doc/hotspare
	install -m 0644 LICENSE README.md CHANGELOG.md build/release/$(RELEASE)/usr/share/doc/hotspare
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime='@$(shell git log -1 --format=%ct)' \
		-C build/release -c $(RELEASE) | gzip -n >build/$(RELEASE).tar.gz
	cd build && sha256sum $(RELEASE).tar.gz >$(RELEASE).tar.gz.sha256 && cat $(RELEASE).tar.gz.sha256

.PHONY: lint
lint: $(LINT_TOOLS) $(PROTO_TOOLS) ## golangci-lint, buf lint, API compatibility with the last release
	tools/lint.sh

.PHONY: proto
proto: $(PROTO_TOOLS) ## regenerate gen/ from proto/
	bin/buf generate

.PHONY: verify
verify: $(PROTO_TOOLS) ## generated code, go.mod and formatting are up to date (changes nothing)
	tools/verify.sh

# Each set of tools is one `go build` of the tools that its modfile names. The outputs are
# touched because the go command leaves a binary alone that is already right.
$(PROTO_TOOLS) &: tools/go.mod tools/go.sum
	cd tools && $(TOOLBUILD) -o ../bin/ tool
	touch $(PROTO_TOOLS)

$(LINT_TOOLS) &: tools/lint.mod tools/lint.sum
	cd tools && $(TOOLBUILD) -modfile=lint.mod -o ../bin/ tool
	touch $(LINT_TOOLS)

$(TEST_TOOLS) &: tools/test.mod tools/test.sum
	cd tools && $(TOOLBUILD) -modfile=test.mod -o ../bin/ tool
	touch $(TEST_TOOLS)
