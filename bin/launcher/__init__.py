"""What bin/run, bin/test and bin/flask do. Standard library only: it runs before there is a .venv."""
