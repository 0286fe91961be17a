"""The paper's quantitative and comparative sentences, each with how its number is computed from the tables of the project."""
