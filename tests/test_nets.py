"""Layers against their textbook forms, closed forms and the reference arrays."""

import pytest
import torch
import torch.nn.functional as F

from pwmlib.nets import MLPEnsemble, NormedLinear, SimNorm, mish, mlp, simnorm


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_mish_equals_torch(scale):
    x = (torch.randn(500, dtype=torch.float64) * scale).float().requires_grad_()
    (ours,) = torch.autograd.grad(mish(x).sum(), x)
    exact = x.detach().double().requires_grad_()
    (theirs,) = torch.autograd.grad(F.mish(exact).sum(), exact)
    torch.testing.assert_close(mish(x), F.mish(exact).float(), rtol=2e-6, atol=1e-7)
    torch.testing.assert_close(ours, theirs.float(), rtol=5e-6, atol=1e-6)


def test_mish_at_extremes_is_finite():
    x = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
    y = mish(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, torch.tensor([0.0, 0.0, 0.0, 100.0, 1e4]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(slope, torch.tensor([0.0, 0.0, 0.6, 1.0, 1.0]), atol=1e-6, rtol=1e-6)


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
            layer.weight.data, layer.bias.data = ensemble.weights[i][m].data, ensemble.biases[i][m, 0].data
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
