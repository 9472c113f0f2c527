# The rules of the protocol: their table, their tests, what the tests are worth.

.PHONY: rules mutants
rules: $(STAMP) ## write docs/rules.md and docs/shoulds.md: each rule and where it is checked, each recommendation
	@$(PYTHON_BIN) -m tests.rules.document $(RULES_ARGS)
	@$(PYTHON_BIN) -m tests.rules.shoulds $(RULES_ARGS)

mutants: $(STAMP) ## take out each check in turn: its tests must fail (MUTANTS_ARGS=--every=20, or a part of a name)
	@nice -n 10 $(PYTHON_BIN) -m tests.rules.mutants $(MUTANTS_ARGS)
	@nice -n 10 $(PYTHON_BIN) -m tests.rules.service_mutants $(MUTANTS_ARGS)

.PHONY: negative-vectors
negative-vectors: $(STAMP) ## write vectors/negative: what a client must refuse
	@$(PYTHON_BIN) -m tests.rules.negative

# FUZZ_EXAMPLES=15 is what `make test` runs.
.PHONY: fuzz
fuzz: $(STAMP) ## try changed messages, trees, saved states at length (FUZZ_EXAMPLES=1000)
	@FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),1000) nice -n 10 $(BIN)/pytest -q -n auto tests/fuzz

.PHONY: attacks
attacks: $(STAMP) ## run every attack of docs/attacks.md (ATTACKS_ARGS=... for pytest)
	@$(PYTHON_BIN) -m tests.attack_list $(ATTACKS_ARGS)
