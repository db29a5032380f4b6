"""A publisher to an MQTT broker, and a reader: beside a service, which knows nothing of it."""
