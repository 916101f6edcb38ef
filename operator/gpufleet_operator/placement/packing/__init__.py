from gpufleet_operator.placement.packing.mix import PRIOR, Census, Mix, PodType

__all__ = ["PRIOR", "Census", "Mix", "PodType"]
