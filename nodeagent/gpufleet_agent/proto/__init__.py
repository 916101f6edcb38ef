"""The kubelet's two gRPC APIs: messages generated from .proto files in this folder, typed clients and servers."""
