"""What Kassa costs, measured on one machine in one run: see `.venv/bin/python -m bench --help`."""
