"""Networks on a GPU against their authors' arithmetic; `python -m benchmarks.gpu --help`."""
