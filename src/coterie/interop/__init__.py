"""What shows that other implementations and this one mean the same: vectors, inspection, the interop harness."""
