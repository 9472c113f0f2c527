# The Delivery Service: crashes and load. Machines differ: compare numbers of one machine only.

.PHONY: crash crash-delivery
crash: crash-delivery

crash-delivery: $(STAMP) ## crash the Delivery Service at every write and sync (CRASH_SEEDS, CRASH_KILLS)
	COTERIE_CRASH_SEEDS=$(or $(CRASH_SEEDS),5) COTERIE_CRASH_KILLS=$(or $(CRASH_KILLS),30) \
		$(BIN)/pytest -q tests/services/test_delivery_crash.py

.PHONY: bench-delivery
bench-delivery: $(STAMP) ## measure the Delivery Service (about six minutes), write docs/delivery-performance.md
	@$(PYTHON_BIN) -m bench.delivery

.PHONY: bench-scale
bench-scale: $(STAMP) ## run a group of 50,000 through the service, write docs/scale.md (SCALE_ARGS=--members 5000)
	@$(PYTHON_BIN) -m bench.scale --json build/bench-scale.json $(SCALE_ARGS)
	@$(PYTHON_BIN) -m bench.scale_page build/bench-scale.json
