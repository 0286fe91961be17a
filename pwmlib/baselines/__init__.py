"""What PWM is compared with: TD-MPC2, and PPO and SAC of stable-baselines3."""
