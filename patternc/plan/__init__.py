"""From a pattern to its tile schedule."""
