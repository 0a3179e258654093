"""Drawing: strokes, and the animals that are made of them."""
