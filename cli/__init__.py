"""Holds the command line: options and printing only. What the commands do are calls of the other folders."""
