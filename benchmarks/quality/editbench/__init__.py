"""Holds EditBench: a small world of scenes, edits and wordings, requests in it, and their judge."""
