"""Holds plans: what they are made of and for, where they are kept, and which of them a machine opens."""
