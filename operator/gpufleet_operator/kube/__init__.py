"""The apiserver: the one place that knows HTTP, status codes and the client library."""
