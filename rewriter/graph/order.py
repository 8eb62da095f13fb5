"""The order of nodes in a graph."""

from __future__ import annotations

import onnx_graphsurgeon as gs


def sort_nodes(graph: gs.Graph) -> None:
    """Sort the nodes topologically, in place, and functions behind those that they call.

    Functions stay in their order where the graph has bodies: graphsurgeon would look into these for ever.
    """
    bodies = bool(graph.functions) and any(True for _ in graph.subgraphs())
    graph.toposort(mode="nodes" if bodies else "full")
