# Ten minutes of fuzzing in all, over twelve targets.
make fuzz-coverage FUZZ_SECONDS=50
