# Benchmarks of the core, each operation beside its floor and beside the peers; see docs/performance.md, bench/README.md.

SIDE_BY_SIDE ?= build/side-by-side.json
SIDE_BY_SIDE_ARGS ?=

BENCH_LARGE := build/bench-openssl.json build/bench-libsodium.json

.PHONY: bench bench-core bench-large bench-full bench-peers bench-side bench-side-again bench-side-full bench-side-report bench-blanks
bench: $(STAMP) bench-core bench-side ## time the core against its floor and its peers (about a quarter of an hour), write docs/performance.md
	@$(MAKE) --no-print-directory bench-side-report

bench-core: $(STAMP) bench-large ## time the core against its floor, up to 50,000 members (eight minutes)
	@mkdir -p build
	@$(PYTHON_BIN) -m bench.core --sizes 10,100,1000,10000,50000 --json build/bench.json
	@$(PYTHON_BIN) -m bench.growth build/bench.json --large $(BENCH_LARGE)

bench-large: $(STAMP) ## time 5,000 and 50,000 members by the clock, on all cores, with either library
	@mkdir -p build
	@$(PYTHON_BIN) -m bench.large --json build/bench-openssl.json
	@$(PYTHON_BIN) -m bench.large --primitives libsodium --json build/bench-libsodium.json

bench-full: $(STAMP) bench-large bench-side-full ## as bench, with 50,000 members, blank trees, all suites that are shared (hours; resumes)
	@mkdir -p build
	@$(PYTHON_BIN) -m bench.core --sizes 10,100,1000,10000,50000 --shapes warm,half,blank \
		--json build/bench-full.json
	@$(PYTHON_BIN) -m bench.growth build/bench-full.json --large $(BENCH_LARGE)
	@$(MAKE) --no-print-directory bench-side-report

bench-peers: $(STAMP) ## build the benchmark drivers of all peers whose toolchain is here
	@$(PYTHON_BIN) -m bench.peers.build

bench-side: $(STAMP) ## our operations and the peers' side by side, small groups, measured anew (eight minutes)
	@$(PYTHON_BIN) -m bench.sidebyside --sizes 10,100,1000 --seconds 0.7 --again \
		--json $(SIDE_BY_SIDE) $(SIDE_BY_SIDE_ARGS)
	@$(MAKE) --no-print-directory bench-side-report

bench-side-again: $(STAMP) ## all groups that were measured, anew: what a change of ours needs
	@$(PYTHON_BIN) -m bench.sidebyside --known --again --json $(SIDE_BY_SIDE) $(SIDE_BY_SIDE_ARGS)
	@$(MAKE) --no-print-directory bench-side-report

bench-side-full: $(STAMP) ## all sizes, shapes and providers, cell by cell; goes on where it was (hours)
	@$(PYTHON_BIN) -m bench.sidebyside --sizes 2,10,100,1000,10000,50000 --shapes warm,half,blank \
		--peers all --json $(SIDE_BY_SIDE) $(SIDE_BY_SIDE_ARGS)
	@$(PYTHON_BIN) -m bench.sidebyside --sizes 10,1000 --suites 2 --json $(SIDE_BY_SIDE) $(SIDE_BY_SIDE_ARGS)
	@$(MAKE) --no-print-directory bench-side-report

bench-side-report: $(STAMP) ## write what was measured side by side into docs/performance.md
	@$(PYTHON_BIN) -m bench.sidebyside.report --json $(SIDE_BY_SIDE)

bench-blanks: $(STAMP) ## simulate how the blanks of a bulk add fill (half a minute), write docs/performance.md
	@$(PYTHON_BIN) -m bench.blanks
