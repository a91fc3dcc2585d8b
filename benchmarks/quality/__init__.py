"""Judges what pictures are worth: two bundles compared, and a bundle asked for edits whose answers are known."""
