"""From files and frames to batches: reading tables, fitting a preparation, views and batches."""
