# make demo   the main job on this machine's embedded queue, in a temporary directory; leaves nothing behind
# make test   installs what the tests need (asks for root where it must), then runs all of them
# make build  ./mayfly
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The GPUs' library has functions that older drivers lack: they are bound when they are called, not before. Without a C compiler, Go builds
# without cgo, and mayfly finds no GPUs.
LDFLAGS := -s -w -X main.version=$(VERSION) -extldflags=-Wl,-z,lazy
export CGO_CFLAGS := -O2 -g -Wno-deprecated-declarations

# A checkout on a machine without git builds too.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

.PHONY: build demo test setup check-source unit lint fuzz clean

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

# A minute for each fuzz target.
fuzz:
	$(GO) test -run '^$$' -fuzz FuzzDecode -fuzztime 1m ./queue

clean:
	rm -f mayfly
