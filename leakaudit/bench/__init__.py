"""`leakaudit bench`: the measurements behind the figures that leakaudit states of itself."""
