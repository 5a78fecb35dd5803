"""An index over the repository that can always be rebuilt from it. All SQL of Lanfree lives here."""
