# Fuzzing that follows coverage. `make fuzz` (rules.mk) runs the targets of hypothesis for longer.

.PHONY: fuzz-coverage
fuzz-coverage: $(STAMP) ## fuzz with atheris (pip install -e '.[fuzz]' first; FUZZ_SECONDS=60 a target)
	@mkdir -p build/fuzz/message build/fuzz/tree build/fuzz/inspect build/fuzz/receive build/fuzz/member
	@for target in message tree inspect receive member; do \
		nice -n 10 $(PYTHON_BIN) -m fuzz.run $$target build/fuzz/$$target fuzz/corpus/$$target \
			-max_total_time=$(or $(FUZZ_SECONDS),60) || exit 1; \
	done
