"""MJCF files against MuJoCo itself: mass matrix, bias forces and accelerations of the loaded model; and what is refused."""

import numpy as np
import pytest
import torch
from oracle import forces

mujoco = pytest.importorskip("mujoco", reason="MJCF files need MuJoCo")

from companion.running.paths import PROJECT  # noqa: E402
from pwmlib.sim.engine.mjcf import UnsupportedMJCF, load_mjcf  # noqa: E402
from pwmlib.sim.engine.model import Material  # noqa: E402
from pwmlib.sim.engine.rigid_bodies import forward_kinematics, mass_matrix  # noqa: E402
from pwmlib.sim.env import DifferentiableEnv  # noqa: E402
from pwmlib.sim.registry import EnvSpec  # noqa: E402

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


SHIFTED = HOPPER.replace('axis="0 0 1" damping', 'axis="0 0 1" ref="1.25" damping').replace('stiffness="3"', 'stiffness="3" ref="-20"')
"""Its coordinates count from elsewhere."""


@pytest.mark.parametrize("text", [HOPPER, BRANCHED, SHIFTED], ids=["hopper", "branched", "shifted"])
@pytest.mark.parametrize("seed", range(3))
def test_mass_matrix_and_acceleration_are_mujocos(text, seed, tmp_path):
    path = write(tmp_path, text)
    loaded = load_mjcf(path, limit_damping=0.0)
    model, theirs = loaded.model, mujoco.MjModel.from_xml_path(str(path))
    theirs.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_LIMIT
    data, rng = mujoco.MjData(theirs), np.random.default_rng(seed)
    data.qpos[:] = theirs.qpos0 + 0.5 * rng.standard_normal(theirs.nq)
    if text is not BRANCHED:
        data.qpos[3] = -abs(data.qpos[3])  # inside its limit: ours is a spring, MuJoCo's a constraint
    data.qvel[:] = rng.standard_normal(theirs.nv)
    mujoco.mj_forward(theirs, data)
    expected = np.zeros((theirs.nv, theirs.nv))
    for column, unit in zip(expected, np.eye(theirs.nv), strict=True):
        mujoco.mj_mulM(theirs, data, column, unit)
    q, qd = (list(torch.tensor(x[None], dtype=torch.float64).unbind(-1)) for x in (data.qpos - theirs.qpos0, data.qvel.copy()))
    h = np.zeros_like(expected)
    for (i, j), value in mass_matrix(model, forward_kinematics(model, q)).items():
        h[i, j] = h[j, i] = float(value)
    np.testing.assert_allclose(h, expected, atol=1e-9 * np.abs(expected).max())
    high_up = Material(ke=0.0, kd=0.0, kf=0.0, mu=0.0)
    tau = np.array([float(t) for t in forces(model, high_up, q, qd, [0.0] * model.nd, [])])
    np.testing.assert_allclose(np.linalg.solve(h, tau), data.qacc, rtol=1e-6, atol=1e-6 * np.abs(data.qacc).max())


def test_motors_limits_and_start_pose_are_read(tmp_path):
    load_mjcf(write(tmp_path, HOPPER.replace("<mujoco>", "<!-- a <robot> --><mujoco><!-- two -- dashes -->"), "commented.xml"))
    loaded = load_mjcf(write(tmp_path, HOPPER))
    assert [(link, torque) for _, link, torque in loaded.motors] == [("thigh", 200.0), ("foot", 80.0)]
    thigh = loaded.model.links[loaded.model.index["thigh"]].joint
    assert thigh.lower == pytest.approx(np.radians(-150)) and thigh.upper == 0 and thigh.stiffness == 3 and thigh.armature == 1
    assert loaded.start.shape == (loaded.model.nq,) == (5,)
    assert len(loaded.model.contacts) == 2 + 2 + 2 + 8


def test_gymnasiums_own_ant_loads_and_runs(tmp_path):
    gymnasium = pytest.importorskip("gymnasium")
    from pathlib import Path

    from pwmlib.sim.robots.free_root import AntRules

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


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.xml"):
        load_mjcf(tmp_path / "nowhere.xml")
    with pytest.raises(ValueError, match=r"MuJoCo cannot read .*broken\.xml"):
        load_mjcf(write(tmp_path, "<mujoco><worldbody>", "broken.xml"))


FLOOR = "<geom type='plane' size='9 9 1'/>"


def robot(*, floor=FLOOR, world="", joint="", geom="", body="", inside="", after="", option="", motor=None):
    """An MJCF file of one pendulum with something added somewhere."""
    motors = "" if motor is None else f'<actuator><motor name="m" joint="j" {motor}/></actuator>'
    return (
        f"<mujoco>{option}<worldbody>{floor}{world}<body name='b' pos='0 0 1' {body}><joint name='j' axis='0 1 0' {joint}/>"
        f"<geom name='g' size='.1' {geom}/>{inside}</body></worldbody>{motors}{after}</mujoco>"
    )


TWO = "<body name='c' pos='0 0 2'><joint name='k' axis='0 1 0'/><geom size='.1'/></body>"
ELEMENTS = {
    "option density, viscosity, wind": [
        (robot(option="<option viscosity='.1'/>"), "option viscosity"), (robot(option="<option density='1.2'/>"), "option density")],
    "option gravity along z": [(robot(option="<option gravity='0 0 -1.6'/>"), lambda x: x.model.gravity == 1.6)],
    "option gravity with another direction": [
        (robot(option="<option gravity='1 0 -9.8'/>"), "gravity"), (robot(option="<option gravity='-9.8 0 0'/>"), "gravity")],
    "option flags that switch physics off": [(robot(option="<option><flag contact='disable'/></option>"), "flag contact")],
    "option timestep, integrator, solver": [
        (robot(option="<option timestep='.01' integrator='RK4' solver='CG'/>"), lambda x: x.model.nd == 1)],
    "plane z = 0 of the world": [(robot(), lambda x: len(x.model.contacts) == 1)],
    "no floor": [(robot(floor=""), lambda x: x.model.contacts == [] and len(x.model.links[0].shapes) == 1)],
    "a floor elsewhere": [
        (robot(floor="<geom name='low' type='plane' size='9 9 1' pos='0 0 -.5'/>"), "geom 'low': a floor at height -0.5"),
        (robot(floor="<geom name='steep' type='plane' size='9 9 1' euler='10 0 0'/>"), "geom 'steep': a floor at height 0 with normal")],
    "obstacles, height fields": [
        (robot(world="<geom name='wall' type='box' size='1 1 1'/>"), "geom 'wall': an obstacle"),
        (robot(world="<body pos='3 0 0'><geom name='post' size='1'/></body>"), "geom 'post': an obstacle"),
        (robot(world="<geom name='hills' type='hfield' hfield='h'/>",
               after="<asset><hfield name='h' nrow='2' ncol='2' size='1 1 1 1'/></asset>"), "geom 'hills': an obstacle")],
    "geoms of a robot's base": [
        (robot(floor=FLOOR + "<body name='base'><geom size='.2'/>" + TWO + "</body>"), lambda x: not x.model.links[0].collides)],
    "contype, conaffinity": [
        (robot(geom="contype='0' conaffinity='0'"), lambda x: x.model.contacts == []),
        (robot(geom="contype='0'"), lambda x: len(x.model.contacts) == 1),
        (robot(geom="contype='2' conaffinity='2'"), lambda x: x.model.contacts == []),
        (robot(inside="<geom type='cylinder' size='.1 .1' contype='0' conaffinity='0' mass='3'/>"),
         lambda x: len(x.model.contacts) == 1 and x.model.masses[0].mass > 3),
        (robot(floor="<geom type='plane' size='9 9 1' contype='0' conaffinity='0'/>"), lambda x: x.model.contacts == [])],
    "exclude of the world": [(robot(after="<contact><exclude body1='world' body2='b'/></contact>"), "exclude of 'world' and 'b'")],
    "collisions between links, exclude of two links": [
        (robot(world=TWO, after="<contact><exclude body1='b' body2='c'/></contact>"), lambda x: len(x.model.contacts) == 2)],
    "friction, solref, solimp, margin, condim": [
        (robot(geom="friction='.1' solref='.01 1' condim='1'"), lambda x: x.model.material == Material())],
    "gravcomp": [(robot(body="gravcomp='1'"), "body 'b': gravcomp")],
    "mocap": [(robot(world="<body name='hand' mocap='true'><geom size='.1' contype='0' conaffinity='0'/></body>"), "body 'hand': mocap")],
    "joint ref, springref": [
        (robot(joint="ref='45' springref='60' stiffness='2' range='0 90'"),
         lambda x: np.allclose([x.start[0], *(getattr(x.model.links[0].joint, k) for k in ("target", "lower", "upper"))],
                               [0, *np.radians([15, -45, 45])]))],
    "joint range": [(robot(joint="range='-10 20'"), lambda x: x.model.links[0].joint.limit_damping == 10),
                    (robot(), lambda x: x.model.links[0].joint.limit_damping == 0)],
    "frictionloss": [(robot(joint="frictionloss='1'"), "joint 'j': frictionloss")],
    "nonlinear stiffness or damping": [(robot(joint="stiffness='1 2'"), "joint 'j': nonlinear stiffness")],
    "stiffness, damping, armature of a free joint": [
        ("<mujoco><worldbody><body><joint name='r' type='free' damping='1'/><geom size='.1'/></body></worldbody></mujoco>",
         "joint 'r': stiffness, damping and armature of a free")],
    "limits, stiffness of a ball joint": [
        ("<mujoco><worldbody><body><joint name='r' type='ball' stiffness='1'/><geom size='.1'/></body></worldbody></mujoco>",
         "joint 'r': stiffness of ball")],
    "ctrlrange that is symmetric": [
        (robot(motor="gear='50' ctrlrange='-.4 .4'"), lambda x: x.motors == (("m", "b", 20.0),)),
        (robot(motor="gear='50'"), lambda x: x.motors == (("m", "b", 50.0),))],
    "ctrlrange that is not": [(robot(motor="gear='50' ctrlrange='0 1'"), "actuator 'm': ctrlrange 0 1 is not symmetric")],
    "forcerange, actuatorfrcrange beyond the motor's reach": [
        (robot(joint="actuatorfrcrange='-60 60'", motor="gear='50' forcerange='-1 1'"), lambda x: x.motors == (("m", "b", 50.0),))],
    "forcerange, actuatorfrcrange within it": [
        (robot(motor="gear='50' forcerange='-.5 .5'"), "actuator 'm': forcerange"),
        (robot(joint="actuatorfrcrange='-20 60'", motor="gear='50'"), "joint 'j': actuatorfrcrange")],
    "servos, muscles, motors with dynamics or not on a joint": [
        (robot(after="<actuator><position name='servo' joint='j'/></actuator>"), "actuator 'servo': only motors")],
    "tendon, equality, pair, flex, skin, plugin": [
        (robot(after="<tendon><fixed name='rope'><joint joint='j' coef='1'/></fixed></tendon>"), "tendons are not supported, found 'rope'"),
        (robot(after="<equality><joint name='eq' joint1='j'/></equality>"), "equalities are not supported, found 'eq'")],
    "keyframe, sensor, site, camera, light, visual, asset": [
        (robot(inside="<site name='s'/>", after="<keyframe><key qpos='1'/></keyframe>"), lambda x: x.start.tolist() == [0.0])],
    "a file without a moving body, a URDF file": [
        ("<mujoco/>", "no body has a joint"),
        ("<mujoco><worldbody><body><geom size='.1'/></body></worldbody></mujoco>", "no body has a joint"),
        ('<robot name="r"><link name="a"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
         "</link></robot>", "root element is 'robot'")],
}  # fmt: skip


def documented():
    """Element -> what the page says of it."""
    section = (PROJECT / "docs" / "simulator.md").read_text().split("## MJCF files")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {row[0]: row[1] for row in rows[2:]}


@pytest.mark.parametrize("element", ELEMENTS)
def test_the_page_says_what_becomes_of_an_element(element, tmp_path):
    says = documented()[element]
    assert says in ("honoured", "refused", "ignored")
    for text, expected in ELEMENTS[element]:
        path = write(tmp_path, text)
        assert isinstance(expected, str) == (says == "refused")
        if says == "refused":
            with pytest.raises(UnsupportedMJCF, match=expected) as caught:
                load_mjcf(path)
            assert "robot.xml" in str(caught.value)
        else:
            assert expected(load_mjcf(path)), text


def test_every_element_of_the_page_is_tested():
    assert list(documented()) == list(ELEMENTS)
