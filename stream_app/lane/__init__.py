"""The batch lane: the data path of the worker, in place of Faust's one event at a time."""
