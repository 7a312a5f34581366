"""What the studies share: samples, fits, tables, figures, files, the report."""
