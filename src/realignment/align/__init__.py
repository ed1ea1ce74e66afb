"""Make a reference model: plain DPO on the old labels, so that there is an old policy to leave."""
