"""Layer 4, adapters: one file, one library. None imports another; each imports its library itself."""
