"""Layers against their textbook forms, closed forms and the reference arrays."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from pwmlib.kernels import functions as fused
from pwmlib.model.layers import MLPEnsemble, NormedLinear, SimNorm, mlp, simnorm
from pwmlib.optimizer.actor_critic import Critics


def float64_layer(x, weight, bias, kind):
    """LayerNorm and activation of one member in float64, from torch's own pieces."""
    if kind == "mish_norm":
        return F.layer_norm(F.mish(x), x.shape[-1:], weight, bias)
    a = F.layer_norm(x, x.shape[-1:], weight, bias)
    return F.mish(a) if kind == "norm_mish" else F.softmax(a.unflatten(-1, (-1, 8)), -1).flatten(-2)


@pytest.mark.parametrize("kind", ["norm_mish", "mish_norm", "norm_simnorm"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("members", [1, 3])
def test_fused_layers_are_as_exact_as_torch(kind, scale, members):
    """Value and all gradients: error against float64 at most three times that of torch's float32 layers, plus rounding."""
    torch.manual_seed(0)
    x = torch.randn(members * 6, 40) * scale
    weight, bias, upstream = 1 + 0.3 * torch.randn(members, 40), torch.randn(members, 40), torch.randn(members * 6, 40)
    fused_layer = {
        "norm_mish": fused.norm_mish,
        "mish_norm": lambda *a: fused.norm_mish(*a, mish_first=True),
        "norm_simnorm": fused.norm_simnorm,
    }[kind]

    def evaluate(layer, dtype, separate):
        inputs = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
        if separate:
            parts = [layer(p, w, b, kind) for p, w, b in zip(inputs[0].chunk(members), inputs[1], inputs[2], strict=True)]
            y = torch.cat(parts)
        else:
            y = layer(*inputs)
        return [y.detach(), *torch.autograd.grad((y * upstream.to(dtype)).sum(), inputs)]

    exact = evaluate(float64_layer, torch.float64, True)
    theirs = evaluate(float64_layer, torch.float32, True)
    for ours, torch32, truth in zip(evaluate(fused_layer, torch.float32, False), theirs, exact, strict=True):
        size = truth.abs().max()
        assert (ours - truth).abs().max() / size <= 3 * (torch32 - truth).abs().max() / size + 1e-6


@pytest.mark.long
def test_fused_layers_give_the_same_bits_from_a_cold_a_warm_and_a_half_filled_cache(tmp_path):
    """Exact resume rests on it: a process that compiles and one that loads from the cache must agree."""
    code = (
        "import hashlib, sys, torch; torch.manual_seed(0); torch.set_num_threads(1); from pwmlib.kernels import functions as fused\n"
        "x = torch.randn(24, 64, requires_grad=True); w, b = torch.rand(1, 64, requires_grad=True), torch.rand(1, 64)\n"
        "layers = [fused.norm_mish, lambda *a: fused.norm_mish(*a, mish_first=True), fused.norm_simnorm]\n"
        "ys = [layer(x, w, b) for layer in layers[:int(sys.argv[1])]]\n"
        "gs = torch.autograd.grad(sum((y * y).sum() for y in ys), (x, w)) if len(ys) == 3 else ()\n"
        "print(hashlib.md5(b''.join(t.detach().numpy().tobytes() for t in [*ys, *gs])).hexdigest())"
    )

    def run(cache, layers=3):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / cache)}
        command = [sys.executable, "-c", code, str(layers)]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    run("half", layers=1)
    assert run("cold") == run("cold") == run("half")


def test_fused_layers_keep_nan_and_refuse_wrong_shapes():
    x = torch.randn(4, 16)
    x[1, 3] = float("nan")
    for layer in (fused.norm_mish, fused.norm_simnorm):
        y = layer(x, torch.ones(1, 16), torch.zeros(1, 16))
        assert y[1].isnan().any() and y[[0, 2, 3]].isfinite().all()
    with pytest.raises(ValueError, match="do not fit"):
        fused.norm_mish(torch.zeros(4, 16), torch.ones(3, 16), torch.zeros(3, 16))


@pytest.mark.parametrize("shape", [(16,), (3, 64), (2, 5, 24)])
def test_simnorm_equals_softmax_of_groups(shape):
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(shape)
    textbook = torch.cat([F.softmax(g, -1) for g in x.split(8, -1)], -1)
    (expected,) = torch.autograd.grad((textbook * weight).sum(), x)
    (gradient,) = torch.autograd.grad((simnorm(x) * weight).sum(), x)
    torch.testing.assert_close(simnorm(x), textbook, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(simnorm(x).unflatten(-1, (-1, 8)).sum(-1), torch.ones(*shape[:-1], shape[-1] // 8))


@pytest.mark.parametrize("trained", [("weight",), ("bias",), ("weight", "bias"), ("x", "bias")])
@pytest.mark.parametrize("layer", [fused.norm_mish, fused.norm_simnorm])
def test_fused_gradients_do_not_depend_on_what_else_is_trained(layer, trained):
    g = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(*shape, generator=g) for name, shape in (("x", (6, 16)), ("weight", (2, 16)), ("bias", (2, 16)))}
    upstream = torch.randn(6, 16, generator=g)
    everything = {name: v.clone().requires_grad_() for name, v in inputs.items()}
    expected = torch.autograd.grad(layer(**everything), everything.values(), upstream)
    some = {name: v.clone().requires_grad_(name in trained) for name, v in inputs.items()}
    layer(**some).backward(upstream)
    for (name, value), e in zip(some.items(), expected, strict=True):
        assert value.grad is None if name not in trained else torch.equal(value.grad, e)


@pytest.mark.parametrize("norm", ["before_activation", "none"])
def test_no_states_have_no_values(norm):
    critics = Critics(3, members=2, hidden=(8,), norm=norm)
    for lead in ((0,), (4, 0)):
        assert critics(torch.zeros(*lead, 3)).shape == (2, *lead) and critics.value(torch.zeros(*lead, 3)).shape == lead


def test_simnorm_refuses_a_width_that_is_no_multiple():
    with pytest.raises(ValueError, match=r"multiple of group_size=8.*\(2, 12\)"):
        simnorm(torch.zeros(2, 12))


@pytest.mark.parametrize("norm", ["before_activation", "after_activation", "none"])
def test_ensemble_equals_separate_mlps(norm):
    torch.manual_seed(0)
    ensemble = MLPEnsemble(3, 5, (7, 6), 1, norm=norm)
    for p in ensemble.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(4, 2, 5)
    together = ensemble(x)
    assert together.shape == (3, 4, 2, 1)
    for m in range(3):
        single = mlp(5, (7, 6), 1, norm=norm)
        for i, layer in enumerate(single):
            layer.weight.data, layer.bias.data = ensemble.weights[i][m].data.T.contiguous(), ensemble.biases[i][m, 0].data
            if layer.ln is not None:
                layer.ln.weight.data, layer.ln.bias.data = ensemble.ln_weights[i][m, 0].data, ensemble.ln_biases[i][m, 0].data
        torch.testing.assert_close(together[m], single(x), rtol=1e-5, atol=1e-6)


def test_spectral_norm_bounds_the_weight():
    layer = NormedLinear(20, 30, spectral_norm=True)
    layer.train()
    for _ in range(50):
        layer(torch.randn(4, 20))
    assert torch.linalg.matrix_norm(layer.weight, 2) < 1.05


def test_mlp_and_simnorm_match_reference_arrays(golden):
    g = golden("01_mlp_simnorm")
    torch.testing.assert_close(simnorm(g["simnorm_in"]), g["simnorm_out"], rtol=2e-5, atol=2e-6)
    net = mlp(7, (16, 12), 8, output=SimNorm(4))
    net.load_state_dict({k.removeprefix("w."): v for k, v in g.items() if k.startswith("w.")})
    x = g["mlp_in"].clone().requires_grad_()
    out = net(x)
    torch.testing.assert_close(out, g["mlp_out"], rtol=2e-5, atol=2e-6)
    (out * g["mlp_out_weight"]).sum().backward()
    torch.testing.assert_close(x.grad, g["mlp_grad_in"], rtol=1e-3, atol=1e-6)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, g[f"g.{name}"], rtol=1e-3, atol=1e-6)
