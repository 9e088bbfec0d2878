"""The rules: what makes a layer or a model worth a finding. One TOML file each, no code."""
