"""Which change of a layer's design removes its finding, found by re-auditing changed graphs."""

from leakaudit.advice.search import Advice, Candidate, LayerAdvice, advise
from leakaudit.advice.weights import ResampledWeights

__all__ = ["Advice", "Candidate", "LayerAdvice", "ResampledWeights", "advise"]
