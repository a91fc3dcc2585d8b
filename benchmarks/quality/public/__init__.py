"""Runs public benchmarks of edits on a bundle: KontextBench, GEdit-Bench, GEditBench v2, and folders of their forms."""
