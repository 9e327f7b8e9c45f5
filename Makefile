# Every target runs from a clean clone with Go alone; what else a test wants is
# named in the summary at the end of `make test`.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PKG     ?= ./...
IMAGE   ?= sandwich-waypoint:$(VERSION)
FUZZTIME ?= 10s

# A module of its own, for what it depends on.
SUITES := internal/interop/suites

# The same source gives the same bytes: no paths, no build time, no build id,
# nothing of the machine. `make reproducible` checks it.
BUILDFLAGS := -trimpath -buildvcs=false -ldflags '-s -w -buildid= -X main.version=$(VERSION)'

.PHONY: build test vet race housecheck fuzz bars bars-long peers bench image reproducible cross clean

build: ## the programs, into bin/
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o bin/ ./cmd/...

# The name of the summary's file changes each time, so a skipped test is never
# answered from the cache (internal/needs).
test: vet ## everything that go test knows, and what was missing for it
	@missing=$$(mktemp) && status=0; \
	SANDWICH_MISSING=$$missing $(GO) test $(PKG) || status=$$?; \
	if [ '$(PKG)' = ./... ]; then (cd $(SUITES) && SANDWICH_MISSING=$$missing $(GO) test ./...) || status=$$?; fi; \
	if [ -s $$missing ]; then \
	  echo; echo "Not tested, because this machine lacks:"; \
	  sort -u $$missing | awk -F': skips ' '{ n[$$1]++; t[$$1] = t[$$1] "\n      " $$2 } END { for (w in n) print "  " w " (" n[w] " skipped)" t[w] }'; \
	  echo "CONTRIBUTING.md says how to install it; .ci/run does."; \
	else echo; echo "Nothing was missing: every test ran."; fi; \
	rm -f $$missing; exit $$status

vet:
	$(GO) vet $(PKG)
	if [ '$(PKG)' = ./... ]; then cd $(SUITES) && $(GO) vet ./...; fi

race: ## the same with the race detector
	$(GO) test -race $(PKG)

housecheck: ## the same with owner checks, and returned buffers poisoned
	$(GO) vet -tags housecheck $(PKG)
	$(GO) test -tags housecheck $(PKG)

# The targets are found in the sources: to ask each package's test program would
# take minutes to build them all.
fuzz: ## every fuzz target for FUZZTIME, one on each processor
	@all=$$($(GO) list -f '{{.ImportPath}} {{.Dir}}' $(PKG)) || exit 1; echo "$$all" | while read -r pkg dir; do \
	  find "$$dir" -maxdepth 1 -name '*_test.go' -exec sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$$pkg \1|p" {} +; \
	done | GO='$(GO)' xargs -n 2 -P "$$(getconf _NPROCESSORS_ONLN)" .ci/fuzz $(FUZZTIME)

bars: ## one line for each bar that takes minutes; fails if one does
	$(GO) run ./cmd/bars

bars-long: ## the bars that take longer
	$(GO) run ./cmd/bars -long

peers: ## the comparison with other proxies, into bench/results and README.md
	$(GO) run ./cmd/waypoint-load bench --page README.md

bench: ## Go benchmarks, for benchstat
	$(GO) test -run '^$$' -bench . -benchmem ./...

reproducible: ## two builds, far apart, are the same bytes
	SANDWICH_REPRODUCIBLE=1 $(GO) test -count=1 -run TestBuildIsReproducible -v ./internal/house

cross: ## it builds where we cannot test
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o /dev/null ./cmd/waypoint
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...

image: ## for this machine; add --platform linux/amd64,linux/arm64 for both
	docker buildx build --build-arg VERSION=$(VERSION) -t $(IMAGE) $(IMAGEFLAGS) .

clean:
	rm -rf bin
