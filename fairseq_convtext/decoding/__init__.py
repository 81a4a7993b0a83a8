"""Reading a canvas: torch, with numba for the search; knows of fairseq no more than what its models return."""
