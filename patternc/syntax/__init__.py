"""From the text of a `.pat` file to its abstract syntax."""
