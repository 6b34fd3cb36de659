"""What the compiler can say about a pattern without running it."""
