"""The round trip to people: what they are asked, in forms they can fill in, and what they said."""
