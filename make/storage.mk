# Storage: the long runs.

.PHONY: crash
crash: $(STAMP) ## cut the power and kill processes under storage, at length
	@COTERIE_CRASH=full $(BIN)/pytest -q -n auto tests/services/test_storage_crash.py \
		tests/unit/storage/test_vault.py $(PYTEST_ARGS)

.PHONY: bench-storage
bench-storage: $(STAMP) ## measure a step of the client's storage
	@$(PYTHON_BIN) bench/storage.py
