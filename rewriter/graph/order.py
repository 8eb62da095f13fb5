"""The order of nodes in a graph."""

from __future__ import annotations

import onnx_graphsurgeon as gs


def sort_nodes(graph: gs.Graph) -> None:
    """Sort the nodes topologically, in place, and functions behind those that they call.

    Functions stay in their order where the graph has bodies: graphsurgeon would look into these for ever.
    """
    bodies = list(graph.subgraphs(recursive=True))
    functions = any(each.functions for each in (graph, *bodies))
    graph.toposort(mode="nodes" if bodies and functions else "full")
