"""Programs on top: the command line (`cli`), the operator's commands (`operator`) and what `coterie serve` runs."""
