# Benchmarks of the core, each operation beside its floor; see docs/performance.md.

.PHONY: bench bench-full
bench: $(STAMP) ## time the core against its floor (three minutes), write docs/performance.md
	@mkdir -p build
	@$(PYTHON_BIN) -m bench.core --sizes 10,100,1000,10000 --json build/bench.json
	@$(PYTHON_BIN) -m bench.growth build/bench.json

bench-full: $(STAMP) ## as bench, with 50,000 members and trees that are half or all blank
	@mkdir -p build
	@$(PYTHON_BIN) -m bench.core --sizes 10,100,1000,10000,50000 --shapes warm,half,blank \
		--json build/bench-full.json
	@$(PYTHON_BIN) -m bench.growth build/bench-full.json
