"""Make a reference model: train by plain DPO on the old labels, so that there is an old policy to leave."""
