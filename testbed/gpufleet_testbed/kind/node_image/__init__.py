"""The image of a kind node, made on a machine without a registry of images.

kind's own recipe makes it: the stage `base` of the Dockerfile in its module, then `kind build node-image`. What these
take from registries and from clones of repositories is replaced by Debian's packages and the test bed's binaries.
"""
