"""Single tasks and the multi-task pipeline on another device than the CPU: each tensor where it belongs, also after an interruption."""

import dataclasses

import pytest
import torch
from pretend_gpu import PretendGPU, WrongDeviceError, pretended_gpu
from test_multitask import tiny_experiment
from test_single_task import settings  # noqa: F401  (a fixture)

from companion.running.jobs import JobResult
from companion.single_task.runner import SingleTaskRun


def test_a_gpu_that_is_not_there_refuses_what_a_real_one_would():
    with PretendGPU():
        there, here = torch.zeros(3, device="cuda"), torch.ones(3)
        assert there.device.type == "cuda" and (there + 1).is_cuda and there.cpu().device.type == "cpu" and here.to("cuda").is_cuda
        assert (there + torch.tensor(2.0)).is_cuda, "a scalar may come from the CPU"
        for wrong in (lambda: there + here, lambda: torch.nn.Linear(3, 1).to("cuda")(here), there.numpy, lambda: here[there.bool()]):
            with pytest.raises(WrongDeviceError):
                wrong()


OFTEN, SELDOM = ("shac", "pwm"), ("pwm_scratch", "pwm_state_space", "pwm_offline", "tdmpc2", "ppo", "sac")


@pytest.mark.parametrize("algorithm", [*OFTEN, *(pytest.param(name, marks=pytest.mark.long) for name in SELDOM)])
def test_each_learner_trains_continues_and_is_evaluated_on_a_gpu(algorithm, settings, tmp_path, monkeypatch):  # noqa: F811
    run = ("hopper", 0, settings, tmp_path)
    with monkeypatch.context() as patch, pretended_gpu(patch):
        evaluations = []

        def cut(*args, **kwargs):
            evaluations.append(1)
            if len(evaluations) == 2:
                raise KeyboardInterrupt
            return evaluate(*args, **kwargs)

        from companion.single_task import runner

        evaluate = runner.evaluate_policy
        patch.setattr(runner, "evaluate_policy", cut)
        with pytest.raises(KeyboardInterrupt):
            SingleTaskRun(algorithm, *run, device="cuda").train()
        line = SingleTaskRun(algorithm, *run, device="cuda").train()
    assert line["status"] == "finished", line["reason"]
    policy = SingleTaskRun(algorithm, *run).policy()
    assert policy(torch.zeros(2, 11), None).shape == (2, 3), "on the CPU, for whoever has no GPU"


def one_by_one(function):
    """What torch.func.vmap computes, in a loop: vmap forgets that a tensor pretends."""

    def looped(parameters, *inputs):
        rows = range(len(inputs[0]))
        return torch.stack([function({k: p[i] for k, p in parameters.items()}, *(x[i] for x in inputs)) for i in rows])

    return looped


@pytest.mark.long
@pytest.mark.parametrize("stacked", [False, True])
def test_the_multi_task_pipeline_runs_on_a_gpu(stacked, tmp_path, monkeypatch):
    both = tiny_experiment(tmp_path)  # one of its tasks has everything that a device sees, an agent's replay too
    experiment = dataclasses.replace(both, tasks=both.tasks[:1], device="cuda", stacked=stacked)
    training, policy = (dataclasses.replace(part, updates=4) for part in (experiment.scale.training, experiment.scale.policy))
    scale = dataclasses.replace(experiment.scale, training=training, policy=policy, evaluate_every=2)
    here = lambda jobs, **_: [JobResult(j.name, j.function(**j.arguments)) for j in jobs]  # noqa: E731
    with monkeypatch.context() as patch, pretended_gpu(patch):
        patch.setattr("companion.running.jobs.run_jobs", here)
        patch.setattr("pwmlib.optimizer.stacked.vmap", one_by_one)
        for module in ("experiment", "stages", "jobs"):
            patch.setattr(f"companion.mt80.{module}.resolve_device", torch.device)
        table = dataclasses.replace(experiment, scale=scale).results()
    assert len(table) == 2 and table[["score", "planning_score", "model_value"]].notna().all(axis=None)
