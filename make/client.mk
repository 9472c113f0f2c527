# The client under load and under crashes, for longer than `make test` does it.

.PHONY: concurrency
concurrency: $(STAMP) ## twenty clients that commit at random, for a minute
	@COTERIE_CONCURRENCY_SECONDS=60 $(BIN)/pytest -q -n0 tests/services/test_concurrency.py --junitxml=build/concurrency.xml
	@grep -o '<property [^/]*' build/concurrency.xml

.PHONY: crash-client
crash-client: $(STAMP) ## kill a client at every step and request of a long story
	@COTERIE_CRASH_POINTS=all $(BIN)/pytest -q -n auto tests/services/test_client_crash.py
