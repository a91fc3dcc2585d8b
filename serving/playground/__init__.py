"""Holds the playground: the page at /, its style and its modules, as browsers read them, and what serves them."""
