"""Charted events and laboratory results: cleaned, streamed, and kept in buckets of stays."""
