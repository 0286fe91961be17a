"""What the notebooks run: a folder a notebook, with its parameters, study, figures and claims; below them runs and reports."""
