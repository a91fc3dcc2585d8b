"""Looks at prompts and pictures, and refuses what is not to be used or handed out."""
