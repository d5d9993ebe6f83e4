"""The small world: a real model of 135 M parameters from a package registry teaches a student cut out of it."""
