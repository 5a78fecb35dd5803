"""REST API and web console. Nothing here yet: its place in the order of layers is held by the import contract."""
