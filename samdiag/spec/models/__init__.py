"""Models by name: one file for each closed library, each with `build(request) -> Model`."""
