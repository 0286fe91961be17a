"""The library against the readable reference (reference_pwm.py) and the released modules' arrays."""

from dataclasses import replace

import pytest
import reference_pwm as reference
import torch

from pwmlib.model.frozen import FrozenWorldModel
from pwmlib.model.twohot import TwoHot
from pwmlib.model.world_model import WorldModel, WorldModelConfig, WorldModelLossConfig, world_model_loss
from pwmlib.optimizer.imagination import imagine
from pwmlib.optimizer.pwm import PWM, PWMConfig, critic_targets

OBS, ACTION, BATCH, HORIZON = 11, 3, 5, 6
CONFIG = WorldModelConfig(
    latent_dim=16, encoder_hidden=(18, 12), dynamics_hidden=(20, 20), reward_hidden=(20,), task_dim=6, two_hot=TwoHot(21)
)


def make_model(dtype):
    torch.manual_seed(1)
    model = WorldModel(OBS, ACTION, tasks=3, action_dims=[3, 2, 1], config=CONFIG)
    for p in model.parameters():  # away from zero and symmetric starts
        torch.nn.init.normal_(p, std=0.4)
    return model.to(dtype)


def layers(net):
    """An `mlp` as the reference's list of layers."""
    found = []
    for block in net:
        normed = block.ln is not None
        act = "simnorm" if block.activation is not None and not isinstance(block.activation, str) else "mish" if normed else None
        norm = {"before_activation": "before", "after_activation": "after", "none": None}[block.norm]
        layer = {"W": block.weight, "b": block.bias, "act": act, "norm": norm}
        found.append(layer | ({"ln_w": block.ln.weight, "ln_b": block.ln.bias} if normed else {}))
    return found


def critic_layers(net, member, norm):
    found = []
    for i, weight in enumerate(net.weights):
        layer = {"W": weight[member].T, "b": net.biases[i][member, 0], "act": None, "norm": None}
        if i < len(net.weights) - 1:
            layer |= {"act": "mish", "norm": norm, "ln_w": net.ln_weights[i][member, 0], "ln_b": net.ln_biases[i][member, 0]}
        found.append(layer)
    return found


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def close(ours, theirs, dtype):
    """In norm, 1e-6 relative in float32 and 1e-12 in float64."""
    limit = 1e-6 if dtype == torch.float32 else 1e-12
    assert (ours - theirs).norm() <= limit * theirs.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"detach_policy_input": True, "critic_value": "min", "norm_order": "after_activation", "terminal_discount": "gamma^(H+1)"},
        {"actor_loss_scale": "horizon", "critic_loss": "mean"},
    ],
)
def test_one_update_agrees_with_the_reference(dtype, task, changes):
    """Actor loss and gradient, TD(lambda) targets, critic loss and gradient of one batch."""
    model = make_model(dtype)
    config = replace(PWMConfig(horizon=HORIZON, batch=BATCH, actor_hidden=(14, 12), critic_hidden=(14, 10)), **changes)
    view = FrozenWorldModel(model, task)
    obs, noise = torch.randn(BATCH, OBS, dtype=dtype), torch.randn(HORIZON, BATCH, ACTION, dtype=dtype)
    learner = PWM(view, lambda b, g: view.encode(obs).detach(), config, seed=3)
    learner.actor.to(dtype)
    learner.critics.to(dtype)
    roll = imagine(view, learner.actor, view.encode(obs).detach(), noise=noise, detach_policy_input=config.detach_policy_input)
    loss = learner.actor_loss(roll)
    gradients = torch.autograd.grad(loss, list(learner.actor.parameters()), retain_graph=True)
    targets = critic_targets(roll, learner.critics.value, gamma=config.gamma, lam=config.lam)
    critic_loss = learner.critic_loss(roll.states.flatten(0, 1).detach(), targets.flatten())
    critic_gradients = torch.autograd.grad(critic_loss, list(learner.critics.parameters()))

    norm = {"before_activation": "before", "after_activation": "after"}[config.norm_order]
    e = model.task_embedding(torch.tensor([task] * BATCH)).detach()
    wm = {"dynamics": layers(model.dynamics), "reward": layers(model.reward_head), "mask": model.action_mask[task]}
    actor = {"mean": layers(learner.actor.mean), "log_std": learner.actor.log_std}
    critics = [critic_layers(learner.critics.net, m, norm) for m in range(3)]
    z = reference.apply_net(layers(model.encoder), torch.cat([obs, e], -1)).detach()
    expected, zs, rewards = reference.actor_loss(
        wm,
        actor,
        critics,
        e,
        z,
        noise,
        gamma=config.gamma,
        reduction=config.critic_value,
        detach=config.detach_policy_input,
        exponent=int(config.terminal_discount == "gamma^(H+1)"),
        divide=HORIZON if config.actor_loss_scale == "horizon" else 1.0,
    )
    close(loss, expected, dtype)
    close(flat(gradients), flat(torch.autograd.grad(expected, list(learner.actor.parameters()))), dtype)
    with torch.no_grad():
        next_values = [reference.value_of(critics, state, config.critic_value) for state in zs[1:]]
        expected_targets = torch.stack(reference.td_lambda_targets([r.detach() for r in rewards], next_values, config.gamma, config.lam))
    close(targets, expected_targets, dtype)
    states = torch.cat([s.detach() for s in zs[:-1]])
    expected_critic = reference.critic_loss(critics, states, expected_targets.flatten(), horizon=HORIZON, kind=config.critic_loss)
    close(critic_loss, expected_critic, dtype)
    close(flat(critic_gradients), flat(torch.autograd.grad(expected_critic, list(learner.critics.parameters()))), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_world_model_loss_agrees_with_the_reference(dtype):
    model = make_model(dtype)
    obs, action = torch.randn(HORIZON + 1, BATCH, OBS, dtype=dtype), torch.rand(HORIZON, BATCH, ACTION, dtype=dtype) * 2 - 1
    reward, task = torch.randn(HORIZON, BATCH, dtype=dtype) * 3, torch.tensor([0, 1, 2, 1, 0])
    loss, _ = world_model_loss(model, obs, action, reward, task, WorldModelLossConfig(gamma=0.9))
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    wm = {"encoder": layers(model.encoder), "dynamics": layers(model.dynamics), "reward": layers(model.reward_head)}
    expected = reference.world_model_loss(wm | {"mask": model.action_mask[task]}, obs, action, reward, model.task_embedding(task), 0.9)
    close(loss, expected, dtype)
    close(flat(gradients), flat(torch.autograd.grad(expected, parameters)), dtype)


def load_golden_model(g):
    bins = g["wm._reward.2.weight"].shape[0]
    config = WorldModelConfig(16, (18, 18), (20, 20), (20, 20), task_dim=6, two_hot=TwoHot(bins), apply_action_mask=False)
    model = WorldModel(10, 3, tasks=4, config=config)
    names = {"_encoder": "encoder", "_dynamics": "dynamics", "_reward": "reward_head", "_task_emb": "task_embedding"}
    weights = {}
    for key, value in g.items():
        if key.startswith("wm."):
            head, _, rest = key.removeprefix("wm.").partition(".")
            weights[f"{names[head]}.{rest}"] = value
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all("mean" in k or "std" in k or "mask" in k for k in missing)
    return model


def test_world_model_matches_released_modules(golden):
    g = golden("02_world_model")
    model = load_golden_model(g)
    z, task = [model.encode(g["obs"], g["task"])], g["task"]
    for a in g["act"]:
        z.append(model.next(z[-1], a, task))
    torch.testing.assert_close(torch.stack(z), g["z"], rtol=2e-5, atol=2e-6)
    logits = torch.stack([model.reward_logits(s, a, task) for s, a in zip(z, g["act"], strict=False)])
    torch.testing.assert_close(logits, g["reward_logits"], rtol=2e-5, atol=2e-6)
    for symexp, name in ((False, "reward_pseudo"), (True, "reward_symexp")):
        torch.testing.assert_close(model.decode_reward(logits, symexp=symexp), g[name][..., 0], rtol=2e-4, atol=2e-6)


def test_policy_update_matches_released_code(golden):
    """variant="released" without return scaling: actor loss, its gradient, TD(0) targets and critic loss."""
    g = golden("04_policy_update_detach0_retrms0")
    model, task = load_golden_model(g), g["task"]
    config = PWMConfig.variant(
        "released",
        horizon=int(g["horizon"]),
        gamma=float(g["gamma"]),
        batch=5,
        detach_policy_input=False,
        return_scaling="none",
        actor_hidden=(14, 12, 10),
        critic_hidden=(14, 10),
    )
    start = model.encode(g["obs"], task).detach()

    class ManyTasks:
        """One task a row, as in the arrays."""

        state_dim, action_dim = 16, 3

        def advance(self, state, action):
            return model.next(state, action, task)

        def reward(self, state, action, next_state):
            return model.reward(state, action, task)

        def done(self, next_state):
            return None

    learner = PWM(ManyTasks(), lambda b, gen: start, config)
    with torch.no_grad():
        for k in range(4):
            learner.actor.mean[k].weight.copy_(g[f"actor.mu_net.{3 * k}.weight"])
            learner.actor.mean[k].bias.copy_(g[f"actor.mu_net.{3 * k}.bias"])
            if k < 3:
                learner.actor.mean[k].ln.weight.copy_(g[f"actor.mu_net.{3 * k + 2}.weight"])
                learner.actor.mean[k].ln.bias.copy_(g[f"actor.mu_net.{3 * k + 2}.bias"])
        learner.actor.log_std.copy_(g["actor.logstd"])
        net = learner.critics.net
        for i in range(3):
            net.weights[i].copy_(g[f"critic_stacked.{(0, 4, 8)[i]}"].mT)
            net.biases[i].copy_(g[f"critic_stacked.{(1, 5, 9)[i]}"].unsqueeze(1))
            if i < 2:
                net.ln_weights[i].copy_(g[f"critic_stacked.{(2, 6)[i]}"].unsqueeze(1))
                net.ln_biases[i].copy_(g[f"critic_stacked.{(3, 7)[i]}"].unsqueeze(1))
    roll = imagine(learner.dynamics, learner.actor, start, noise=g["eps"])
    torch.testing.assert_close(roll.states, g["z"], rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(roll.rewards, g["reward"], rtol=2e-4, atol=2e-6)
    torch.testing.assert_close(learner.critics.value(roll.reached), g["next_values"], rtol=2e-5, atol=2e-6)
    loss = learner.actor_loss(roll)
    torch.testing.assert_close(loss, g["actor_loss"], rtol=2e-5, atol=1e-7)
    loss.backward()
    for k in range(4):
        torch.testing.assert_close(learner.actor.mean[k].weight.grad, g[f"grad.actor.mu_net.{3 * k}.weight"], rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(learner.actor.log_std.grad, g["grad.actor.logstd"], rtol=1e-3, atol=1e-7)
    targets = critic_targets(roll, learner.critics.value, gamma=config.gamma, lam=0.0)
    torch.testing.assert_close(targets, g["target_values"], rtol=2e-5, atol=2e-6)
    critic_loss = learner.critic_loss(roll.states.flatten(0, 1).detach(), targets.flatten())
    torch.testing.assert_close(critic_loss, g["critic_loss_full_batch"], rtol=2e-5, atol=1e-7)
