"""The tokens that a checkpoint has beside its vocabulary of pieces."""
