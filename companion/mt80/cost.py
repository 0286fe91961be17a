"""What a multi-task experiment is about to spend, said before it starts."""

from pwmlib.model.training import WorldModelTraining
from pwmlib.optimizer.online_episodes import OnlineConfig
from pwmlib.optimizer.pwm import PWMConfig

from .experiment import ExperimentRuns

COST = {
    "update_ms": 60.0,
    "dm_control_episode_s": 0.2,
    "metaworld_episode_s": 0.2,
    "dm_control_planning_s": 22.0,
    "metaworld_planning_s": 5.5,
    "dm_control_data_s": 2.4,
    "metaworld_data_s": 0.1,
    "model_update_ms": 88.0,
    "joint_times": 3.7,
    "imitation_ms": 5.0,
}
"""CPU time of one policy update (batch 64, H = 16, latent 128), of one evaluated, planned or generated episode (planners included), and of
one world-model update (0.6M weights, batch 256, H = 16, bfloat16 products), measured at scale laptop; one core of a Xeon. joint_times: of
that update in float32, jointly with TD-MPC2's Q-functions and prior. imitation_ms: of an update of imitation, batch 512 (AMD EPYC)."""


def policy_update_s(config: PWMConfig, latent_dim: int) -> float:
    """CPU time of one policy update, s."""
    return COST["update_ms"] * (config.batch / 64) * (config.horizon / 16) * max(1.0, latent_dim / 128) / 1000


def model_update_s(training: WorldModelTraining, latent_dim: int) -> float:
    """CPU time of one world-model update, s."""
    slower = 1.8 if training.precision == "float32" else 1.0
    return slower * COST["model_update_ms"] * (latent_dim / 128) * (training.batch / 256) * (training.horizon / 16) / 1000


def agent_s(config: OnlineConfig, latent_dim: int, suite: str) -> float:
    """CPU time of an agent that acts and learns (App. C.4), its evaluations apart, s."""
    models, policies = model_update_s(config.training, latent_dim), policy_update_s(config.policy, latent_dim)
    episodes = config.random_episodes + config.episodes
    return config.training.updates * models + config.policy.updates * policies + episodes * COST[f"{suite}_episode_s"]


def cost_line(experiment: ExperimentRuns) -> str:
    """One sentence: the stages that an experiment has at most, and about how many minutes they take on its number of processes."""
    e, scale, workers = experiment, experiment.scale, max(1, experiment.workers)
    policies, c = len(e.tasks) * e.train_seeds, scale.policy

    latent = scale.model.latent_dim

    def model_minutes(training: WorldModelTraining) -> float:
        times = COST["joint_times"] if scale.pretraining == "tdmpc2" else 1.0
        return times * training.updates * model_update_s(training, latent) / 60

    update_s, measured = policy_update_s(c, latent), ""
    imitation_s = scale.anchor.imitation * COST["imitation_ms"] / 1000 if scale.anchor else 0.0
    if e.published:
        update_s = e.published.update_s(c)
        measured = f" ({update_s:.2g} s an update of a policy, measured now in the published model on one thread)"
    checks = -(-c.updates // scale.evaluate_every)
    seconds = sum(
        e.train_seeds * (imitation_s + c.updates * update_s + checks * scale.eval_episodes * COST[f"{t.suite}_episode_s"])
        + scale.planner_episodes * COST[f"{t.suite}_planning_s"]
        for t in e.tasks
    )
    minutes = f"planning in the model and policies take about {seconds / 60 / workers:.0f} min{measured}"
    todo = f"{policies} policies of {c.updates} updates; {minutes}"
    agents = scale.agents
    if agents:
        learning = sum(agent_s(agents.agent.online(scale.model, agents.policy), latent, t.suite) for t in e.tasks) / 60 / workers
        more = agents.rounds * (learning + model_minutes(agents.training))
        todo = f"agents of all tasks and a world model from their replays, {agents.rounds} times, about {more:.0f} min; {todo}"
    if e.shipped and not agents and not scale.anchor:
        return f"To do at most: {todo} on {e.workers} processes."
    plan, rounds = scale.data, scale.collection
    episodes = {"dm_control": sum(plan.dm_control.values()), "metaworld": sum(plan.metaworld.values())}
    data = sum(episodes[t.suite] * COST[f"{t.suite}_data_s"] for t in e.tasks) / 60 / workers
    model = model_minutes(scale.training)
    if rounds:
        policy_s = rounds.policy.updates * policy_update_s(rounds.policy, latent)
        each = sum(policy_s + rounds.episodes * COST[f"{t.suite}_episode_s"] for t in e.tasks)
        model += rounds.rounds * (each / 60 / workers + model_minutes(rounds.training))
    trained = "a world model with its rounds of collection" if rounds else "a world model"
    first = f"episodes, about {data:.0f} min" + (" and those of a learning agent" if plan.replay else "")
    parts = [] if e.chunks else [first]
    parts += [] if e.published or e.shipped else [f"{trained}, about {model:.0f} min"]
    return f"To do at most: {'; '.join([*parts, todo])} on {e.workers} processes."
