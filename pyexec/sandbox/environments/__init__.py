"""Find, pull and build the images that programs run in. See docs/design/environments.md."""
