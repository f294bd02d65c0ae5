# What a developer runs. `make test` needs only Go: it installs what else it needs
# where there is none.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0
BENCHSTAT = golang.org/x/perf/cmd/benchstat@v0.0.0-20250813145418-2f7363a06fe1
COUNT = 6
SERVERS = $$REDIS_SERVER redis-server valkey-server
LIBFAKETIMES = $(addsuffix /faketime/libfaketime.so.1,/usr/lib/* /usr/lib /usr/lib64 /usr/local/lib)

DURATION = 1h
SEED = 1

.PHONY: test lint bench bench-peers soak redis

test: redis
	go test -race ./...
	cd benchmarks && go test ./...

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted"; exit 1; fi
	for module in . benchmarks; do (cd $$module && go vet ./... && go run $(STATICCHECK) ./...) || exit 1; done

# Ratios to the floor, raw rueidis in the same run, are what counts: see README.
bench: redis
	go test -run '^$$' -bench . -benchmem -count=$(COUNT) . | tee bench.out
	go run $(BENCHSTAT) -col /impl bench.out

# The same work through redlock, its peers and the floor: docs/performance.md.
# It takes about ten minutes, with both hands off the machine. PEERS=-quick is
# a look.
bench-peers: redis
	cd benchmarks && go run . -out ../docs/bench $(PEERS)

# Everything at once for DURATION, from SEED, and beside it the simulation for
# the first ten minutes: see docs/proof.md. Histories go to soak-SEED/.
soak: redis
	go test -v -count=1 -timeout=0 -run '^TestSimulation$$' . -sim.for=10m -sim.seed=$(SEED) & \
	go test -v -count=1 -timeout=0 -run '^TestSoak$$' ./internal/nemesis \
		-soak.duration=$(DURATION) -soak.seed=$(SEED) -soak.out=$(CURDIR)/soak-$(SEED); \
	status=$$?; wait $$! && exit $$status

# On Linux tests also move the clocks of servers, with libfaketime, and the race
# detector needs a C compiler.
redis:
	@missing=redis-server; \
	for server in $(SERVERS); do if command -v $$server >/dev/null; then missing=; fi; done; \
	if [ "$$(uname)" = Linux ] && ! ls $$LIBFAKETIME $(LIBFAKETIMES) 2>/dev/null | grep -q .; then missing="$$missing libfaketime"; fi; \
	if [ "$$(uname)" = Linux ] && ! command -v $$(go env CC) >/dev/null; then missing="$$missing gcc libc6-dev"; fi; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
	if command -v apt-get >/dev/null; then \
		$$as_root apt-get update && \
		$$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y --no-install-recommends $$missing; \
	elif command -v brew >/dev/null; then \
		brew install $$(echo $$missing | sed s/-server//); \
	else \
		echo "not found: $$missing. Install redis or valkey, and on Linux libfaketime and a C compiler, or set REDIS_SERVER, LIBFAKETIME and CC"; exit 1; \
	fi
