"""Drawing: strokes, shapes and the animals made of them."""
