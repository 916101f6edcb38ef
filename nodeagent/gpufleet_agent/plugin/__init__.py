"""The device plugin: advertises devices to the kubelet and allocates to each pod exactly those reserved for it."""
