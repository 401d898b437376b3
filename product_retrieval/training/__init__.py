"""Training of a small dual encoder from a catalogue; knows neither Ray nor a cluster."""
