"""LayerNorm with Mish or SimNorm in one pass over memory, on a CPU; everything else is torch's own."""
