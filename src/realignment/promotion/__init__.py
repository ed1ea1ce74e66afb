"""Decide whether a re-aligned model may replace the champion, and summarise a run for scripts."""
