"""What a pass knows of the gradients of single pairs, without forming any of them."""
