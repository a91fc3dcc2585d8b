"""Computes fused operators on the CPU where several processes share a request: by their bodies, with an exchange."""
