"""MJCF files against MuJoCo itself: mass matrix, bias forces and accelerations of the loaded model; and what is refused."""

import numpy as np
import pytest
import torch

mujoco = pytest.importorskip("mujoco", reason="MJCF files need MuJoCo")

from pwmlib.envs import DifferentiableEnv, EnvSpec  # noqa: E402
from pwmlib.sim.dynamics import forward_kinematics, mass_matrix  # noqa: E402
from pwmlib.sim.mjcf import UnsupportedMJCF, load_mjcf  # noqa: E402
from pwmlib.sim.model import Material  # noqa: E402
from pwmlib.sim.reference import forces  # noqa: E402

HOPPER = """
<mujoco><compiler angle="degree"/><default><joint armature="1" damping="1"/><geom density="1000"/></default>
<worldbody><geom type="plane" size="9 9 1"/>
 <body name="torso" pos="0 0 1.25">
  <joint name="x" type="slide" axis="1 0 0" damping="0"/><joint name="z" type="slide" axis="0 0 1" damping="0"/>
  <joint name="tilt" type="hinge" axis="0 1 0" damping="0"/>
  <geom type="capsule" fromto="0 0 -.2 0 0 .2" size=".05"/>
  <body name="thigh" pos="0 0 -.2"><joint name="hip" type="hinge" axis="0 -1 0" range="-150 0" limited="true" stiffness="3"/>
   <geom type="capsule" fromto="0 0 0 0 0 -.45" size=".05"/>
   <body name="foot" pos="0 0 -.7"><joint name="knee" type="hinge" axis="0 -1 0" pos="0 0 .25"/>
    <geom type="capsule" fromto="-.13 0 0 .26 0 0" size=".06"/><geom type="box" size=".05 .02 .1" pos="0 0 .1"/></body></body></body>
</worldbody>
<actuator><motor joint="hip" gear="200"/><motor joint="knee" gear="80"/></actuator></mujoco>
"""
BRANCHED = """
<mujoco><default><geom density="700"/></default><worldbody>
 <body name="base" pos="0.1 0.2 2" euler="20 -10 35"><joint name="swing" type="hinge" axis="0.3 1 0.2" pos="0 0.1 0.3"/>
  <geom type="box" size=".2 .1 .05"/>
  <body name="left" pos=".2 .1 0" euler="0 40 0"><joint name="a" type="hinge" axis="0 1 0"/><joint name="b" type="hinge" axis="1 0 0"/>
   <geom type="capsule" size=".04 .2" pos="0 0 -.2"/>
   <body name="tip" pos="0 0 -.4"><geom type="sphere" size=".08"/></body></body>
  <body name="right" pos=".2 -.1 0"><joint name="c" type="slide" axis="1 0 1"/><geom type="sphere" size=".1" pos=".1 0 0"/></body>
 </body></worldbody></mujoco>
"""


def write(folder, text, name="robot.xml"):
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("text", [HOPPER, BRANCHED], ids=["hopper", "branched"])
@pytest.mark.parametrize("seed", range(3))
def test_mass_matrix_and_acceleration_are_mujocos(text, seed, tmp_path):
    path = write(tmp_path, text)
    loaded = load_mjcf(path, limit_damping=0.0)
    model, theirs = loaded.model, mujoco.MjModel.from_xml_path(str(path))
    theirs.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_LIMIT
    data, rng = mujoco.MjData(theirs), np.random.default_rng(seed)
    data.qpos[:] = theirs.qpos0 + 0.5 * rng.standard_normal(theirs.nq)
    if text is HOPPER:
        data.qpos[3] = -abs(data.qpos[3])  # inside its limit: ours is a spring, MuJoCo's a constraint
    data.qvel[:] = rng.standard_normal(theirs.nv)
    mujoco.mj_forward(theirs, data)
    expected = np.zeros((theirs.nv, theirs.nv))
    for column, unit in zip(expected, np.eye(theirs.nv), strict=True):
        mujoco.mj_mulM(theirs, data, column, unit)
    q, qd = (list(torch.tensor(x[None], dtype=torch.float64).unbind(-1)) for x in (data.qpos.copy(), data.qvel.copy()))
    h = np.zeros_like(expected)
    for (i, j), value in mass_matrix(model, forward_kinematics(model, q)).items():
        h[i, j] = h[j, i] = float(value)
    np.testing.assert_allclose(h, expected, atol=1e-9 * np.abs(expected).max())
    high_up = Material(ke=0.0, kd=0.0, kf=0.0, mu=0.0)
    tau = np.array([float(t) for t in forces(model, high_up, q, qd, [0.0] * model.nd, [])])
    np.testing.assert_allclose(np.linalg.solve(h, tau), data.qacc, rtol=1e-6, atol=1e-6 * np.abs(data.qacc).max())


def test_motors_limits_and_start_pose_are_read(tmp_path):
    loaded = load_mjcf(write(tmp_path, HOPPER))
    assert [(link, torque) for _, link, torque in loaded.motors] == [("thigh", 200.0), ("foot", 80.0)]
    thigh = loaded.model.links[loaded.model.index["thigh"]].joint
    assert thigh.lower == pytest.approx(np.radians(-150)) and thigh.upper == 0 and thigh.stiffness == 3 and thigh.armature == 1
    assert loaded.start.shape == (loaded.model.nq,) == (5,)
    assert len(loaded.model.contacts) == 2 + 2 + 2 + 8


def test_gymnasiums_own_ant_loads_and_runs(tmp_path):
    gymnasium = pytest.importorskip("gymnasium")
    from pathlib import Path

    from pwmlib.envs.ant import AntRules

    loaded = load_mjcf(Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "ant.xml", material=Material(ke=1e4, kd=1e3))
    assert (loaded.model.nq, loaded.model.nd, len(loaded.motors)) == (15, 14, 8)

    class LoadedAnt(AntRules):
        def __init__(self, variant):
            super().__init__(variant)
            self.model = loaded.model

    env = DifferentiableEnv(EnvSpec(LoadedAnt, substeps=32, interval=32, count=4))
    for _ in range(50):
        step = env.step(torch.zeros(4, 8))
    assert torch.isfinite(step.state).all() and int(env.simulator.counters["exploded"].sum()) == 0


@pytest.mark.parametrize(
    ("element", "named"),
    [
        (
            '<body name="b"><joint type="hinge" axis="0 1 0"/><geom name="pin" type="cylinder" size=".1 .2"/></body>',
            "geom 'pin': a cylinder",
        ),
        ('<body name="b"><joint name="bb" type="ball" range="0 1" limited="true"/><geom size=".1"/></body>', "joint 'bb': limits of ball"),
        ('<body name="b"><joint name="f" axis="0 1 0" frictionloss="1"/><geom size=".1"/></body>', "joint 'f': frictionloss"),
        ('<body name="a"><geom size=".1"/><body name="b"><freejoint name="r"/><geom size=".1"/></body></body>', "free"),
    ],
)
def test_unsupported_elements_are_named(element, named, tmp_path):
    path = write(tmp_path, f"<mujoco><worldbody>{element}</worldbody></mujoco>")
    with pytest.raises(ValueError, match=named) as caught:
        load_mjcf(path)
    assert "robot.xml" in str(caught.value)


def test_tendons_servos_missing_and_broken_files_are_named(tmp_path):
    body = '<worldbody><body name="b"><joint name="j" axis="0 1 0"/><geom size=".1"/></body></worldbody>'
    servo = write(tmp_path, f'<mujoco>{body}<actuator><position name="servo" joint="j"/></actuator></mujoco>')
    with pytest.raises(UnsupportedMJCF, match="actuator 'servo': only motors"):
        load_mjcf(servo)
    tendon = write(tmp_path, f'<mujoco>{body}<tendon><fixed name="rope"><joint joint="j" coef="1"/></fixed></tendon></mujoco>')
    with pytest.raises(UnsupportedMJCF, match="tendons are not supported, found 'rope'"):
        load_mjcf(tendon)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.xml"):
        load_mjcf(tmp_path / "nowhere.xml")
    with pytest.raises(ValueError, match=r"MuJoCo cannot read .*broken\.xml"):
        load_mjcf(write(tmp_path, "<mujoco><worldbody>", "broken.xml"))
