"""Section 4.1: one task of the differentiable simulator at a time, PWM beside SHAC, TD-MPC2, PPO and SAC."""
