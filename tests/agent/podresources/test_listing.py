from gpufleet_agent.podresources.listing import ClaimedDevice, ContainerKey, ListedContainer, parse_listing
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


def test_devices_of_claims_are_listed_with_driver_pool_and_cdi_names() -> None:
    resources = [
        pb.ClaimResource(
            driver_name="gpu.nvidia.com",
            pool_name="node-1",
            device_name=name,
            cdi_devices=[pb.CDIDevice(name=f"k8s.gpu.nvidia.com/device={name}")],
        )
        for name in ("gpu-0", "gpu-1")
    ]
    claim = pb.DynamicResource(claim_name="gpus", claim_namespace="ml", claim_resources=resources)
    pod = pb.PodResources(
        name="p", namespace="ml", containers=[pb.ContainerResources(name="main", dynamic_resources=[claim])]
    )
    (container,) = parse_listing(pb.ListPodResourcesResponse(pod_resources=[pod]))
    assert container.devices == {}
    assert container.claimed == tuple(
        ClaimedDevice(("gpu.nvidia.com", "node-1", name), (f"k8s.gpu.nvidia.com/device={name}",), ("ml", "gpus"))
        for name in ("gpu-0", "gpu-1")
    )
