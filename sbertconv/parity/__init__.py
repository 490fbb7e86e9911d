"""Stage 4, compare: the questions to both sides, the comparison, and the quality gate."""
