# make demo   the main job on this machine's embedded queue, in a temporary directory; leaves nothing behind
# make test   installs what the tests need (asks for root where it must), then runs all of them
# make build  ./mayfly
# make fleet  a thousand simulated hosts and what they cost
# make chaos  a fleet to which everything happens; make bench  how fast, and how light when idle, beside others; make plots  draws that for docs/performance.md
# make packages  dist/*.deb and *.rpm; make image  the same for Docker; make sbom  what they are made of; make reproducible  that they come out the same twice
# make test-gpu  the tests that need a real NVIDIA GPU, and docs/gpu-report.md; see there for machines with a GPU and no compiler
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The GPUs' library has functions that older drivers lack: they are bound when they are called, not before. Without a C compiler, Go builds
# without cgo, and mayfly finds no GPUs.
LDFLAGS := -s -w -X main.version=$(VERSION) -extldflags=-Wl,-z,lazy
export CGO_CFLAGS := -O2 -g -Wno-deprecated-declarations

# A checkout on a machine without git builds too.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

.PHONY: build demo test chaos fleet bench plots test-gpu build-test-gpu setup setup-peers check-source unit lint fuzz packages image reproducible sbom vulncheck clean

BUILD = $(GO) build -trimpath -tags netgo,osusergo -ldflags '$(LDFLAGS)'

build:
	$(BUILD) -o mayfly .

demo: build
	integration/demo/demo.sh ./mayfly

# Everything, against real brokers, with the race detector. MAYFLY_TEST_REQUIRE=1 turns a test that lacks what it needs
# from a loud skip into a failure.
test: setup check-source
	@report=$$(mktemp); status=0; set -x; \
	MAYFLY_TEST_REPORT=$$report MAYFLY_TEST_REQUIRE=1 $(GO) test -race -timeout 70m ./... || status=$$?; \
	{ set +x; } 2>/dev/null; echo "exercised:"; sort -u $$report | sed 's/^/  /'; rm -f $$report; exit $$status

setup:
	integration/setup.sh

check-source:
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	$(GO) vet ./...

# What needs nothing installed.
unit:
	$(GO) test -short ./...

lint:
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run

# Mayfly on this machine's GPUs. Where Go or a C compiler is missing, it runs what build-test-gpu has made elsewhere: the folder
# build/test-gpu is all that such a machine needs. Without a GPU it says so; with MAYFLY_TEST_REQUIRE=1 it fails over that.
test-gpu:
	@if command -v $(firstword $(GO)) >/dev/null && command -v $(firstword $(CC)) >/dev/null; then $(MAKE) --no-print-directory build-test-gpu; \
	else echo "test-gpu: there is no Go or no C compiler: running what was built elsewhere" >&2; fi
	integration/realgpu/run.sh

build-test-gpu:
	mkdir -p build/test-gpu
	CGO_ENABLED=1 $(BUILD) -o build/test-gpu/mayfly .
	$(CC) -O2 -Wall -Wextra -Werror -o build/test-gpu/cuda-task integration/realgpu/cuda/task.c -ldl
	CGO_ENABLED=0 $(GO) test -c -trimpath -ldflags '-s -w' -o build/test-gpu/realgpu.test ./integration/realgpu
	cp integration/realgpu/run.sh build/test-gpu/run.sh

# A fleet of six hosts and all that can happen to it, for an hour or so, and one at a cluster of brokers; CHAOS is the number of tasks, CLUSTER=1 gives them a cluster of brokers,
# MAYFLY_TEST_SEED is what happens. Before that, some minutes of managers on a simulated broker and clock, SIMULATIONS times.
CHAOS ?= 10000
SIMULATIONS ?= 2000
CLUSTER ?= 0
chaos: setup
	MAYFLY_TEST_SIMULATIONS=$(SIMULATIONS) $(GO) test -run '^TestSimulatedChaos$$' -timeout 1h ./manager
	MAYFLY_TEST_REQUIRE=1 MAYFLY_TEST_CHAOS=$(CHAOS) MAYFLY_TEST_CLUSTER=$(CLUSTER) $(GO) test -run '^(TestChaos|TestFleetCluster|TestMinutesOfTimeouts)$$' -timeout 2h -v ./integration

# Many simulated hosts on one broker, for about half an hour where the machine is large enough (two cores are not, for 1,000); FLEET is their number, docs/fleet-size.md
# has what came of it. What was counted is kept in FLEET_JSON.
FLEET ?= 1000
FLEET_JSON ?= $(CURDIR)/build/fleet.json
fleet: setup
	mkdir -p $(dir $(FLEET_JSON))
	MAYFLY_TEST_REQUIRE=1 MAYFLY_TEST_FLEET=$(FLEET) MAYFLY_TEST_FLEET_JSON='$(FLEET_JSON)' $(GO) test -run '^TestSimulatedFleet$$' -timeout 3h -v ./integration

# What `make bench` compares with.
setup-peers: setup
	GO='$(firstword $(GO))' integration/setup-peers.sh

# All ways in one run on one machine: ratios hold where times do not. Have nothing else run beside it. What benchstat reads is kept in BENCH, and the same with
# machine and versions in BENCH_JSON. MAYFLY_BENCH_WORKERS, MAYFLY_BENCH_WAITING and MAYFLY_BENCH_SOAK are how many workers run at once, how many tasks wait, and how many one manager runs.
BENCH ?= build/bench.txt
BENCH_JSON ?= $(basename $(BENCH)).json
bench: SHELL := /bin/bash
bench: .SHELLFLAGS := -o pipefail -c
bench: setup-peers
	mkdir -p $(dir $(BENCH))
	{ $(GO) test -run '^$$' -bench 'Throughput|Footprint|Peers' -benchtime 3x -timeout 2h ./integration && \
	$(GO) test -run '^$$' -bench 'Workers|Waiting|Soak' -benchtime 1x -timeout 2h ./integration && \
	$(GO) test -run '^$$' -bench Latency -benchtime 500x -timeout 1h ./integration && \
	$(GO) test -run '^$$' -bench Zero -benchtime 20x -timeout 1h ./integration && \
	$(GO) test -run '^$$' -bench Spawn -benchtime 4000x -timeout 1h ./worker/keeper && \
	$(GO) test -run '^$$' -bench Page -benchtime 100x -timeout 1h ./manager/history && \
	$(GO) test -run '^$$' -bench Container -benchtime 60x -timeout 1h ./isolation/container; } 2>&1 | tee $(BENCH)
	$(GO) run ./integration/bench json '$(VERSION)' <$(BENCH) >$(BENCH_JSON)

# What docs/performance.md shows: the results of the last `make bench`, and plots of them.
plots:
	cp $(BENCH_JSON) docs/bench.json
	$(GO) run ./integration/bench svg docs/images <docs/bench.json

# A minute for each fuzz target there is. A find is kept below testdata/fuzz, and is a test from then on.
FUZZTIME ?= 1m

fuzz:
	@grep -ro --include='*_test.go' '^func Fuzz[A-Za-z]*' . | sed 's|/[^/]*:func | |' | sort | while read -r package target; do \
	echo "$$package $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; done

# What others' machines install. The tools are pinned, with all that they are made of, in deploy/tools.
DIST ?= dist
TOOL := $(GO) tool -modfile=deploy/tools/go.mod
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

packages:
	@for c in $$($(GO) env CC) objdump; do command -v $$c >/dev/null || \
	{ echo "cannot make packages without $$c, by which they find GPUs and know their C library: apt-get install gcc libc6-dev" >&2; exit 1; }; done
	rm -rf '$(DIST)/files' '$(DIST)'/mayfly[-_]* && mkdir -p '$(DIST)/files'
	CGO_ENABLED=1 $(BUILD) -o '$(DIST)/files/mayfly' .
	GO='$(GO)' TOOL='$(TOOL)' VERSION='$(VERSION)' DIST='$(DIST)' deploy/package.sh

# docs/install.md says how it is run.
image:
	docker build --build-arg VERSION='$(VERSION)' --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" -t 'mayfly:$(VERSION)' -t mayfly:local .

# Twice from the same sources: in two places, and the second time without what is cached.
reproducible:
	GO='$(GO)' VERSION='$(VERSION)' deploy/reproducible.sh

sbom:
	mkdir -p '$(DIST)'
	GOFLAGS='$(GOFLAGS) -tags=netgo,osusergo' $(TOOL) cyclonedx-gomod app -json -licenses -std -noserial -output '$(DIST)/sbom.json' .

# It asks vuln.go.dev, or VULNDB, which is the URL of a copy.
vulncheck:
	TOOL='$(TOOL)' deploy/vulncheck.sh $(VULNDB:%=-db=%) -tags netgo,osusergo ./...

clean:
	rm -rf mayfly build dist
