"""Models: losses, propagation, the semantic mixin and one file per backbone."""
