"""What a realigned model does, before and after, and how sure that can be."""
