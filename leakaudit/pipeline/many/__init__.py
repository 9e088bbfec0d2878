"""Many audits at once: in other processes, or on a Dask cluster."""
