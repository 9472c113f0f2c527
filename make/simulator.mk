# The simulator of the delivery protocol (docs/simulator.md), at length.

.PHONY: simulate
simulate: $(STAMP) ## simulate the delivery protocol (SIMULATOR_ARGS="--first 20000 --seeds 200 --minutes 60 --jobs 2")
	@nice -n 10 $(PYTHON_BIN) -m coterie.testing.simulator $(SIMULATOR_ARGS)
