"""Run a graph in torch: the client's forward pass, differentiable by autograd."""

from leakaudit.execute.dispatch import compute, execute, run
from leakaudit.execute.interface import NotExecutable

__all__ = ["NotExecutable", "compute", "execute", "run"]
