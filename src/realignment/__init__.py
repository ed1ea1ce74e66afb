"""Re-align a language model when the policy it was trained for changes (TRACE, arXiv:2511.02623)."""

__version__ = "0.1.0"
