"""The operators of the model graph: one file per family, with all static faces of each operator.

Whatever a frontend does not know becomes `Unsupported`. How to read the files: `base` holds what
several families share, `moved` the one derivation of everything that only moves elements.
"""

from leakaudit.graph import Operator, Unsupported
from leakaudit.operators import (
    activation,
    arithmetic,
    attention,
    convolution,
    dense,
    embedding,
    normalisation,
    pooling,
    reduction,
    resize,
    selection,
    shape,
)
from leakaudit.operators.activation import *
from leakaudit.operators.arithmetic import *
from leakaudit.operators.attention import *
from leakaudit.operators.convolution import *
from leakaudit.operators.dense import *
from leakaudit.operators.embedding import *
from leakaudit.operators.normalisation import *
from leakaudit.operators.pooling import *
from leakaudit.operators.reduction import *
from leakaudit.operators.resize import *
from leakaudit.operators.selection import *
from leakaudit.operators.shape import *

FAMILIES = (
    activation,
    arithmetic,
    attention,
    convolution,
    dense,
    embedding,
    normalisation,
    pooling,
    reduction,
    resize,
    selection,
    shape,
)

__all__ = ["Operator", "Unsupported", *(name for family in FAMILIES for name in family.__all__)]
