# The wheel is reproducible.
make wheel-check
