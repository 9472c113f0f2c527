# The interop peers: other MLS libraries behind our gRPC drivers (interop/peers).
# Builds are cached outside the checkout; an unchanged peer costs nothing.

INTEROP_PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
INTEROP_PEERS := ts-mls openmls mls-rs bouncy-castle

.PHONY: interop-peers
interop-peers: ## build every interop peer whose toolchain is here
	$(INTEROP_PYTHON) interop/peers/build.py

.PHONY: $(addprefix interop-peer-,$(INTEROP_PEERS))
$(addprefix interop-peer-,$(INTEROP_PEERS)): interop-peer-%: ## build one interop peer
	$(INTEROP_PYTHON) interop/peers/build.py $*

.PHONY: interop-smoke
interop-smoke: ## let the built peers talk to each other (needs grpcio and grpcio-tools)
	$(INTEROP_PYTHON) interop/peers/smoke.py

INTEROP_STEPS ?= 200

.PHONY: interop interop-vectors interop-quick
interop: interop-peers interop-vectors $(STAMP) ## build all peers, play everything, write docs/interop.md (an hour; goes on where it was)
	@$(BIN)/coterie interop run --lanes 2 --histories 14 --steps $(INTEROP_STEPS) \
		--json build/interop.json --resume $(INTEROP_ARGS)
	@$(BIN)/coterie interop run --lanes 2 --around coterie --ways 4 --json build/interop-ways.json --resume
	@$(BIN)/coterie interop document build/interop.json build/interop-ways.json \
		--vectors build/interop-vectors.json --output docs/interop.md

interop-vectors: $(STAMP) ## play our vectors through the peers, write docs/differential.md
	@rm -rf build/negative
	@now=$$(date +%s); for kind in full bare; do \
		COTERIE_RULES_NOW=$$now $(PYTHON_BIN) -m tests.rules.negative --all --suite 1 --suite 2 \
			$$([ $$kind = bare ] && echo --bare) --to build/negative/$$kind || exit 1; done
	@$(BIN)/coterie interop vectors build/negative/full build/negative/bare \
		--json build/interop-vectors.json --output docs/differential.md

interop-quick: $(STAMP) ## play with ts-mls, and with every other peer that is built or can be
	@bash make/interop-quick.sh
