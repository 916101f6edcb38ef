"""The kubelet's two gRPC interfaces: messages generated from our own .proto files, and typed rims around them."""
