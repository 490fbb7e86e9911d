"""Speed and memory beside PyTorch, as ratios of the same run: `make bench`, or `python -m bench`."""
