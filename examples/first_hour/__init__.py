"""Runs through the first hour of each kind of user in fresh environments, and writes what it shows as a page."""
