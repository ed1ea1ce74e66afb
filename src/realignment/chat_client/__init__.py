"""One HTTP client for OpenAI-compatible servers: concurrent requests, retried, rate-limited and counted."""
