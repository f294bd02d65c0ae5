# What developers run. It needs Go and make. `make test` installs what else the tests need, and
# says what, as does `make deps`. The other targets install nothing.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0
GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
MODULES = . proof examples benchmarks adapters/gocronlock adapters/certmagiclock
BENCHSTAT = golang.org/x/perf/cmd/benchstat@v0.0.0-20250813145418-2f7363a06fe1
COUNT = 6

DURATION = 1h
SEED = 1

# What the tests need and the machine lacks, as names of Debian packages: a server
# and, on Linux, a C compiler with its library, for the race detector and to set the
# clocks of servers, and the proxies that stand in front of servers.
MISSING = \
	missing=; \
	if [ -n "$$REDIS_SERVER" ]; then \
		command -v "$$REDIS_SERVER" >/dev/null || { echo "REDIS_SERVER is $$REDIS_SERVER, and there is no such program" >&2; exit 1; }; \
	elif ! { command -v redis-server || command -v valkey-server || command -v redict-server; } >/dev/null; then \
		missing=redis-server; \
	fi; \
	if [ "$$(uname)" = Linux ] && ! echo '\#include <stdlib.h>' | $$(go env CC) -E -x c - >/dev/null 2>&1; then \
		missing="$$missing gcc libc6-dev"; \
	fi; \
	if [ "$$(uname)" = Linux ]; then \
		has() { PATH=$$PATH:/usr/sbin command -v "$$1" >/dev/null; }; \
		has haproxy || missing="$$missing haproxy"; \
		has nutcracker || missing="$$missing nutcracker"; \
		has stunnel || missing="$$missing stunnel4"; \
	fi

.PHONY: deps installed test lint bench bench-peers soak

# RUNLEVEL=1 keeps the packages from starting servers of their own. Homebrew has other names.
deps:
	@$(MISSING); missing=$$(echo $$missing); \
	if [ -z "$$missing" ]; then echo "make deps: nothing is missing"; exit 0; fi; \
	echo "make deps: missing: $$missing"; \
	if command -v apt-get >/dev/null; then \
		install="env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y --no-install-recommends $$missing"; \
		if [ "$$(id -u)" != 0 ]; then \
			echo "Only root may install it. Run: sudo apt-get update && sudo $$install"; exit 1; \
		fi; \
		install="apt-get update && $$install"; \
	elif command -v brew >/dev/null; then \
		install="brew install $$(echo $$missing | sed 's/redis-server/redis/; s/ *gcc libc6-dev/ gcc/; s/ *nutcracker/ twemproxy/; s/stunnel4/stunnel/')"; \
	else \
		echo "There is no apt-get and no brew here. Install Redis or Valkey and a C compiler, or set REDIS_SERVER and CC; on Linux also haproxy, twemproxy (nutcracker) and stunnel"; exit 1; \
	fi; \
	echo "$$install"; sh -c "$$install"

installed:
	@$(MISSING); if [ -n "$$missing" ]; then echo "missing:" $$missing "(run make deps)"; exit 1; fi

test: deps
	go test -race ./...
	cd proof && go test -race -timeout=20m ./...
	cd examples && go test -race ./...
	cd benchmarks && go test ./...
	cd adapters/gocronlock && go test -race ./...
	cd adapters/certmagiclock && go test -race ./...

# golangci-lint takes a few minutes to build, once. Its findings are those of .golangci.yml in
# every module.
lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted"; exit 1; fi
	for module in $(MODULES); do (cd $$module && go vet ./... && go run $(STATICCHECK) ./... && go run $(GOLANGCI) run ./...) || exit 1; done

# What counts are the ratios to the floor, plain rueidis in the same run: proof/README.md.
bench: installed
	go test -run '^$$' -bench . -benchmem -count=$(COUNT) . | tee bench.out
	go run $(BENCHSTAT) -col /impl bench.out

# The same work through redlock, other libraries and the floor: docs/performance.md.
# It takes about twenty minutes, in which the machine should do nothing else. With
# PEERS=-quick it is short and rough.
bench-peers: installed
	cd benchmarks && go run . -out ../docs/bench $(PEERS)

# All kinds of faults for DURATION, from SEED, and at the same time the simulation:
# see proof/README.md. Histories go to soak-SEED/.
soak: installed
	cd proof && go test -v -count=1 -timeout=0 -run '^TestSimulation$$' ./simulation -sim.for=$(DURATION) -sim.seed=$(SEED) & \
	cd proof && go test -v -count=1 -timeout=0 -run '^TestSoak$$' ./nemesis \
		-soak.duration=$(DURATION) -soak.seed=$(SEED) -soak.out=$(CURDIR)/soak-$(SEED); \
	status=$$?; wait $$! && exit $$status
