"""What goes over the wire, a module a resource. Stable within a version of the API: fields are added, never renamed."""
