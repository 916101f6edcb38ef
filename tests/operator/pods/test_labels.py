"""Labels of a workload's objects."""

from gpufleet_operator.pods import labels


def test_two_long_workloads_have_different_label_values() -> None:
    one, two = labels.label_value("a" * 100 + "1"), labels.label_value("a" * 100 + "2")

    assert one != two
    assert len(one) <= 63
    assert labels.label_value("train") == "train"
