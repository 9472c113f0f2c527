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

INTEROP_STEPS ?= 100

.PHONY: interop interop-quick
interop: interop-peers $(STAMP) ## build all peers, play everything, write docs/interop.md (about half an hour)
	@$(BIN)/coterie interop run --lanes 2 --histories 20 --steps $(INTEROP_STEPS) \
		--json build/interop.json --output docs/interop.md $(INTEROP_ARGS)

interop-quick: $(STAMP) ## play with ts-mls, and with every other peer that is built
	@bash make/interop-quick.sh
