from gpufleet_agent.podresources.listing import ContainerKey, ListedContainer, parse_listing
from gpufleet_agent.proto import podresources_pb2 as pb


def test_entries_of_one_resource_are_merged() -> None:
    response = pb.ListPodResourcesResponse(
        pod_resources=[
            pb.PodResources(
                name="train-0",
                namespace="ml",
                containers=[
                    pb.ContainerResources(
                        name="main",
                        devices=[
                            pb.ContainerDevices(resource_name="gpufleet.dev/gpu", device_ids=["GPU-3"]),
                            pb.ContainerDevices(resource_name="example.com/nic", device_ids=["eth1"]),
                            pb.ContainerDevices(resource_name="gpufleet.dev/gpu", device_ids=["GPU-1", "GPU-2"]),
                            pb.ContainerDevices(resource_name="example.com/empty"),
                        ],
                    ),
                    pb.ContainerResources(name="sidecar"),
                ],
            )
        ]
    )
    assert parse_listing(response) == (
        ListedContainer(
            ContainerKey("ml", "train-0", "main"),
            {"gpufleet.dev/gpu": frozenset({"GPU-1", "GPU-2", "GPU-3"}), "example.com/nic": frozenset({"eth1"})},
        ),
        ListedContainer(ContainerKey("ml", "train-0", "sidecar")),
    )
