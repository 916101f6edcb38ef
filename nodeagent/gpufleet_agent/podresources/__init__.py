"""What the kubelet says of who holds which device."""
