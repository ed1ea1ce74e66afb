"""Export tasks for people to judge, in forms they can fill in, and import their verdicts."""
