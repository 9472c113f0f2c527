# The protocol core: longer runs of what `make test` runs shortly.

HISTORIES ?= 500

.PHONY: histories
histories: $(STAMP) ## try random histories of a group (HISTORIES=500)
	@COTERIE_HISTORIES=$(HISTORIES) $(BIN)/pytest -q -n0 -o faulthandler_timeout=0 tests/scenario/test_histories.py

.PHONY: test-libsodium
test-libsodium: $(STAMP) ## run the core's tests with libsodium for Ed25519 and X25519
	@COTERIE_PRIMITIVES=libsodium $(BIN)/pytest -q -n auto tests/vectors tests/rules tests/unit/mls tests/scenario $(PYTEST_ARGS)
