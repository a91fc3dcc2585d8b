"""Prints what was counted, as lines for people."""

from __future__ import annotations

from collections.abc import Mapping

from .graph_work import Traffic
from .records import Hoisting, Roofline


def show(roofline: Roofline, hoisting: Hoisting, traffic: Mapping[str, Traffic]) -> None:
    """Print stages, a step before and after, and bytes by operator."""
    print(f"{'stage':10} {'parameters':>14} {'weights GB':>11} {'products TFLOP':>15} {'attention TFLOP':>16}  limit")
    for name, stage in roofline.stages.items():
        work = stage.work
        parameters, weights = work.parameters, work.weight_bytes / 1e9
        products, attention = sum(work.products.values()) / 1e12, sum(work.attention.values()) / 1e12
        limit = "" if stage.limit_ms is None else f"{stage.limit_ms:.2f} ms, {stage.bound}"
        print(f"{name:10} {parameters:14,} {weights:11.3f} {products:15.4f} {attention:16.4f}  {limit}")
    print(
        f"\n{'step':10} {'parameters':>14} {'weights GB':>11} {'TFLOP':>15} {'all bytes GB':>14}  less than undivided"
    )
    whole = hoisting.undivided
    for name, loop in (("undivided", whole), ("hoisted", hoisting.hoisted), ("pruned", hoisting.pruned)):
        parameters = 100 * (1 - loop.parameters / whole.parameters)
        operations = 100 * (1 - loop.operations / whole.operations)
        size = 100 * (1 - loop.traffic_bytes / whole.traffic_bytes)
        print(
            f"{name:10} {loop.parameters:14,} {loop.weight_bytes / 1e9:11.3f} {loop.operations / 1e12:15.4f} "
            f"{loop.traffic_bytes / 1e9:14.2f}  {parameters:.2f} % parameters, {operations:.3f} % FLOPs, "
            f"{size:.2f} % bytes"
        )
    if traffic:
        print("\noperators of a step that fuses nothing, read and written")
    for name, one in traffic.items():
        print(f"{name:20} {one.count:5} {one.size_bytes / 1e9:9.2f} GB")
