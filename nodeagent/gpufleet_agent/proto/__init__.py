"""The gRPC APIs of the kubelet: messages generated from .proto files in this folder, typed clients and servers."""
