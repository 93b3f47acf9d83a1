"""From a model folder, images and a table of attributes to masks and findings."""
