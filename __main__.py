"""`python -m kontext_trt` is `kontext-trt`."""

from .cli import main

main()
