"""The step from mixed topics of other products to the three input topics, within the worker."""
