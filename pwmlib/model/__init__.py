"""The world model: encoder, latent dynamics, reward (Sec. 3.3), its training (Eq. 10), and its use as a simulator."""
