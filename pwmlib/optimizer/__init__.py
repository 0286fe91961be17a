"""Algorithm 1: imagined rollouts, actor, critics and their returns (Eq. 6-9); SHAC is the same update on a simulator."""
