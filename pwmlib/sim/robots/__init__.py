"""The robots: their tables, observations, rewards and ends of episodes (Table 2)."""
