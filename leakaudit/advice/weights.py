"""Numbers for the changed network: kept where a shape stays, drawn anew where it changes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from leakaudit.graph import Parameter, WeightSource


@dataclass(frozen=True, slots=True)
class ResampledWeights:
    """A weight source for changed shapes.

    A parameter of a new shape gets numbers drawn from those it had, with replacement: their scale
    fits the layer, and what must be positive stays so. The draw depends on seed and name alone.

    Attributes:
        source: The numbers of the network before the change.
        parameters: The parameters after the change.
        seed: For the draw.
    """

    source: WeightSource
    parameters: Mapping[str, Parameter]
    seed: int = 0

    def load(self, name: str) -> Any:
        """Return parameter `name` as a numpy array of its new shape and its old dtype.

        Raises:
            AuditError: The numbers are missing or unreadable.
        """
        stored = np.asarray(self.source.load(name))
        shape = self.parameters[name].shape if name in self.parameters else stored.shape
        if stored.shape == shape:
            return stored
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        chosen = generator.integers(stored.size, size=shape)
        return stored.reshape(-1)[chosen]
