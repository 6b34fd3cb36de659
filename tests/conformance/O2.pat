# MInference, StreamingLLM: A-shape.
attention O2 { heads 1  mask streaming(16, 100) }
