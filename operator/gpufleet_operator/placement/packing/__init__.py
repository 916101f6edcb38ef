from gpufleet_operator.placement.packing.mix import PRIOR, Mix, MixEstimator, PodType

__all__ = ["PRIOR", "Mix", "MixEstimator", "PodType"]
