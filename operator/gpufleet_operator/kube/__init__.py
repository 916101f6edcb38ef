"""Client of the apiserver: the only package that handles HTTP, status codes and the client library."""
