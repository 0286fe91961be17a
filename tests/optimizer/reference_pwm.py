"""A readable reference of one PWM update, following the equations step by step.

Plain loops over time, minibatches and critics, F.mish and F.softmax, every quantity named as in the paper. Slow on purpose.
`pwmlib` must agree with it (test_reference.py). It shares no code with the library: networks are lists of weights.

A network is a list of layers; a layer is a dict with W [out, in], b [out], optional ln_w, ln_b [out], and what follows:
"norm" ("before" or "after" the activation, or None) and "act" ("mish", "simnorm" or None).
"""

import torch
import torch.nn.functional as F


def apply_layer(layer, x):
    x = x @ layer["W"].T + layer["b"]
    if layer["norm"] == "before":
        x = F.layer_norm(x, x.shape[-1:], layer["ln_w"], layer["ln_b"])
    if layer["act"] == "mish":
        x = x * torch.tanh(F.softplus(x))
    if layer["act"] == "simnorm":  # Eq. 4, groups of 8 consecutive entries
        x = torch.cat([F.softmax(group, -1) for group in x.split(8, -1)], -1)
    if layer["norm"] == "after":
        x = F.layer_norm(x, x.shape[-1:], layer["ln_w"], layer["ln_b"])
    return x


def apply_net(net, x):
    for layer in net:
        x = apply_layer(layer, x)
    return x


def reward_of(wm, z, a, e):
    """Expected symlog reward: sum_i p_i b_i over 101 bins on [-10, 10] (no SymExp)."""
    p = F.softmax(apply_net(wm["reward"], torch.cat([z, e, a], -1)), -1)
    return sum(p[..., i] * (-10 + 20 * i / (p.shape[-1] - 1)) for i in range(p.shape[-1]))


def value_of(critics, z, reduction):
    values = torch.stack([apply_net(critic, z)[..., 0] for critic in critics])
    return values.mean(0) if reduction == "mean" else values.min(0).values


def imagine(wm, actor, e, z, noise, *, detach):
    """Latent rollout: a_h = tanh(mu(z_h) + sigma eps_h), z_{h+1} = F(z_h, a_h, e)."""
    zs, actions, rewards = [z], [], []
    for eps in noise:
        policy_input = zs[-1].detach() if detach else zs[-1]
        sigma = torch.exp(torch.clamp(actor["log_std"], min=-1.427))
        a = torch.tanh(apply_net(actor["mean"], policy_input) + sigma * eps) * wm["mask"]
        rewards.append(reward_of(wm, zs[-1], a, e))
        actions.append(a)
        zs.append(apply_net(wm["dynamics"], torch.cat([zs[-1], e, a], -1)))
    return zs, actions, rewards


def actor_loss(wm, actor, critics, e, z, noise, *, gamma, reduction="mean", detach=False, exponent=0, divide=1.0):
    """Eq. 6 with the sign of a loss: -(1/B) sum_b [ sum_h gamma^h r_h + gamma^H V(z_H) ]."""
    zs, _, rewards = imagine(wm, actor, e, z, noise, detach=detach)
    horizon = len(rewards)
    total = 0
    for h, r in enumerate(rewards):
        total = total + gamma**h * r
    total = total + gamma ** (horizon + exponent) * value_of(critics, zs[-1], reduction)
    return -total.mean() / divide, zs, rewards


def td_lambda_targets(rewards, next_values, gamma, lam):
    """Eq. 7-8 by their definition: a lambda-weighted mixture of all h-step returns that fit into the rollout."""
    horizon = len(rewards)
    targets = []
    for t in range(horizon):
        longest = horizon - t

        def h_step(h, t=t):
            return sum(gamma**n * rewards[t + n] for n in range(h)) + gamma**h * next_values[t + h - 1]

        mixture = sum((1 - lam) * lam ** (h - 1) * h_step(h) for h in range(1, longest))
        targets.append(mixture + lam ** (longest - 1) * h_step(longest))
    return targets


def critic_loss(critics, z, target, *, horizon, kind="sum"):
    """Eq. 9: squared errors summed over time and critics, averaged over trajectories; or the mean over everything."""
    errors = [(apply_net(critic, z)[..., 0] - target) ** 2 for critic in critics]
    if kind == "mean":
        return sum(error.mean() for error in errors) / len(critics)
    return sum(error.mean() for error in errors) * horizon


def world_model_loss(wm, obs, action, reward, e, gamma):
    """Eq. 10: sum_t gamma^t ( ||z_{t+1} - sg(E(s_{t+1}))||^2 + CE(two-hot(r_t), R(z_t, a_t)) )."""
    z = apply_net(wm["encoder"], torch.cat([obs[0], e], -1))
    total = 0
    for t in range(len(action)):
        a = action[t] * wm["mask"]
        logits = apply_net(wm["reward"], torch.cat([z, e, a], -1))
        z = apply_net(wm["dynamics"], torch.cat([z, e, a], -1))
        target = apply_net(wm["encoder"], torch.cat([obs[t + 1], e], -1)).detach()
        distance = ((z - target) ** 2).sum(-1)
        cross_entropy = -(two_hot(reward[t], logits.shape[-1]) * F.log_softmax(logits, -1)).sum(-1)
        total = total + gamma**t * (distance + cross_entropy).mean()
    return total


def two_hot(x, bins):
    """Weights of the two neighbouring bins, one scalar at a time."""
    code = torch.zeros(len(x), bins, dtype=x.dtype)
    for row, scalar in zip(code, x, strict=True):
        y = torch.sign(scalar) * torch.log(1 + scalar.abs())
        position = float((min(max(float(y), -10.0), 10.0) + 10) / 20 * (bins - 1))
        lower = min(int(position), bins - 2)
        row[lower], row[lower + 1] = 1 - (position - lower), position - lower
    return code
