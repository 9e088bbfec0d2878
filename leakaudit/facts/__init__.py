"""What the derivations of operators speak in: facts, what is known of them, bounds on gradients."""
