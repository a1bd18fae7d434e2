"""From settings to a `gpflux.models.DeepGP`."""
