"""Run a graph in torch: the victim's forward pass, differentiable by autograd."""

from leakaudit.rconv.execute.dispatch import execute, run
from leakaudit.rconv.execute.interface import NotExecutable
from leakaudit.rconv.execute.layers import add_channel_bias

__all__ = ["NotExecutable", "add_channel_bias", "execute", "run"]
