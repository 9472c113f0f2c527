# The simulator of the delivery protocol (docs/simulator.md), at length: some 50 seeds of each scenario a minute.

.PHONY: simulate
simulate: $(STAMP) ## simulate the delivery protocol (COTERIE_SIMULATOR_SEEDS=200, COTERIE_SIMULATOR_FIRST=0)
	COTERIE_SIMULATOR_SEEDS=$(or $(COTERIE_SIMULATOR_SEEDS),200) \
		COTERIE_SIMULATOR_FIRST=$(or $(COTERIE_SIMULATOR_FIRST),0) \
		$(BIN)/pytest -q -n auto tests/scenario/test_simulator.py $(PYTEST_ARGS)
