"""Raw files to a store to batches."""
