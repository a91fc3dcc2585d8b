"""Runs the command line: `python -m kontext_trt` is `kontext-trt`."""

from .cli.app import main

main()
