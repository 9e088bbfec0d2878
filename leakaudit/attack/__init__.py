"""The attacker: from graph, weights, gradients and loss alone, never from the truth."""
