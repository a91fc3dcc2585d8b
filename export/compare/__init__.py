"""What one bundle's pictures lose against another's, where, and what it would take to lose less."""
