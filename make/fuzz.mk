# Fuzzing that follows coverage. `make fuzz` (rules.mk) runs the targets of hypothesis for longer.

FUZZ_STAMP := $(VENV)/.fuzz
FUZZ_TARGETS := message tree struct inspect receive member text delivery socket authentication saved vault

# The lock is that of the environment, and atheris besides.
$(FUZZ_STAMP): requirements/fuzz.txt $(STAMP)
	@$(BIN)/pip install --quiet --require-hashes --no-deps --requirement requirements/fuzz.txt
	@touch $@

.PHONY: fuzz-coverage
fuzz-coverage: $(FUZZ_STAMP) ## fuzz with atheris, all night if asked (FUZZ_SECONDS=50 for each of the twelve targets)
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p build/fuzz/$$target; \
		nice -n 10 $(PYTHON_BIN) -m fuzz.run $$target build/fuzz/$$target fuzz/corpus/$$target \
			-max_total_time=$(or $(FUZZ_SECONDS),50) -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/found-$$target- || exit 1; \
	done
	@echo "$(words $(FUZZ_TARGETS)) targets, $(or $(FUZZ_SECONDS),50) seconds each: nothing found"
