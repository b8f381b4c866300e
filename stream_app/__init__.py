"""The shell around the model: everything that touches Kafka, the clock and the environment."""
