# Coterie with ts-mls, and with every other peer that is built already.
make interop-quick
