# Fuzzing that follows coverage. `make fuzz` (rules.mk) runs the targets of hypothesis for longer.

FUZZ_STAMP := $(VENV)/.fuzz
FUZZ_TARGETS := message tree struct inspect receive member text delivery socket authentication saved vault

# The lock is that of the environment, and atheris besides.
$(FUZZ_STAMP): requirements/fuzz.txt $(STAMP)
	@$(BIN)/pip install --quiet --require-hashes --no-deps --requirement requirements/fuzz.txt
	@touch $@

.PHONY: fuzz-coverage
fuzz-coverage: $(FUZZ_STAMP) ## fuzz with atheris, all night if asked (FUZZ_SECONDS=50 for each of the twelve targets)
	@mkdir -p $(FUZZ_TARGETS:%=build/fuzz/%)
	@printf '%s\n' $(FUZZ_TARGETS) | xargs -P "$$(nproc)" -I TARGET sh -c ' \
		nice -n 10 $(PYTHON_BIN) -m fuzz.run TARGET build/fuzz/TARGET fuzz/corpus/TARGET \
			-max_total_time=$(or $(FUZZ_SECONDS),50) -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/found-TARGET- > build/fuzz/TARGET.log 2>&1; \
		code=$$?; echo "fuzz: TARGET"; cat build/fuzz/TARGET.log; exit $$code'
	@echo "$(words $(FUZZ_TARGETS)) targets, $(or $(FUZZ_SECONDS),50) seconds each: nothing found"
