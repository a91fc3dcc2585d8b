"""What single things cost: exporting, building, quantizing, opening, memory. One program, one question."""
