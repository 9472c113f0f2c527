"""What clients and services exchange: `api` holds the requests, `http` and `memory` carry them."""
