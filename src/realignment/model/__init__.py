"""Language models: fetch one from any of its sources, load it, generate with it, save it after training."""
