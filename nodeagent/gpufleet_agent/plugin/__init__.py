"""The device plugin: tells the kubelet which devices there are, and hands each pod exactly those reserved for it."""
