"""The typed model graph. Imports nothing else of leakaudit."""

from leakaudit.graph.graph import Graph, Node, Parameter, Tensor, Use, WeightSource

__all__ = ["Graph", "Node", "Parameter", "Tensor", "Use", "WeightSource"]
