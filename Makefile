# make demo   the main job on this machine's embedded queue, in a temporary directory; leaves nothing behind
# make test   installs what the tests need (asks for root where it must), then runs all of them
# make build  ./mayfly
# make test-gpu  the tests that need a real NVIDIA GPU, and docs/gpu-report.md; see there for machines with a GPU and no compiler
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The GPUs' library has functions that older drivers lack: they are bound when they are called, not before. Without a C compiler, Go builds
# without cgo, and mayfly finds no GPUs.
LDFLAGS := -s -w -X main.version=$(VERSION) -extldflags=-Wl,-z,lazy
export CGO_CFLAGS := -O2 -g -Wno-deprecated-declarations

# A checkout on a machine without git builds too.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

.PHONY: build demo test test-gpu build-test-gpu setup check-source unit lint fuzz clean

build:
	$(GO) build -trimpath -tags netgo,osusergo -ldflags '$(LDFLAGS)' -o mayfly .

demo: build
	integration/demo/demo.sh ./mayfly

# Everything, against real brokers, with the race detector. MAYFLY_TEST_REQUIRE=1 turns a test that lacks what it needs
# from a loud skip into a failure.
test: setup check-source
	@report=$$(mktemp); status=0; set -x; \
	MAYFLY_TEST_REPORT=$$report MAYFLY_TEST_REQUIRE=1 $(GO) test -race -timeout 20m ./... || status=$$?; \
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
	CGO_ENABLED=1 $(GO) build -trimpath -tags netgo,osusergo -ldflags '$(LDFLAGS)' -o build/test-gpu/mayfly .
	$(CC) -O2 -Wall -Wextra -Werror -o build/test-gpu/cuda-task integration/realgpu/cuda/task.c -ldl
	CGO_ENABLED=0 $(GO) test -c -trimpath -ldflags '-s -w' -o build/test-gpu/realgpu.test ./integration/realgpu
	cp integration/realgpu/run.sh build/test-gpu/run.sh

# A minute for each fuzz target.
fuzz:
	$(GO) test -run '^$$' -fuzz FuzzDecode -fuzztime 1m ./queue

clean:
	rm -rf mayfly build
