"""Compare answers blindly, two at a time: who compares, both orders, win rates and strengths."""
