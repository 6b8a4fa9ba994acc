"""From a published model to an artifact folder: weights, libraries, manifest."""
