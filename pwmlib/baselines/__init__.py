"""The algorithms that PWM is compared with."""
