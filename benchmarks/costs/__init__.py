"""Measures what single things cost: exporting, building, quantizing, opening, memory; one program, one question."""
