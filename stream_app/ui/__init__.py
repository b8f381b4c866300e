"""The live page: what a browser shows of the output topics and of the workers."""
