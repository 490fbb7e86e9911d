"""The texts that are asked."""
