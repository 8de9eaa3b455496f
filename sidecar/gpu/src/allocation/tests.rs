use super::*;

fn pod(name: &str) -> PodName {
    PodName { namespace: "inference".to_owned(), name: name.to_owned() }
}

fn entry(name: &str, resources: &[(&str, &[&str])]) -> PodEntry {
    let resources = resources
        .iter()
        .map(|(resource, ids)| ResourceDevices {
            resource: (*resource).to_owned(),
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        })
        .collect();
    PodEntry { pod: pod(name), resources }
}

/// Devices of a pod as `name`, with `*` behind a shared and `?` behind an unknown one.
fn shown(allocations: &Allocations, name: &str) -> Vec<String> {
    let devices = allocations.of(&pod(name)).expect("a listed pod");
    devices
        .iter()
        .map(|device| {
            let unknown = matches!(device.identity, Identity::Unknown { .. });
            let marks = format!("{}{}", if device.shared { "*" } else { "" }, if unknown { "?" } else { "" });
            format!("{}{marks}", device.identity.name())
        })
        .collect()
}

#[test]
fn each_form_of_an_id_becomes_the_device_that_nvml_knows() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("nvidia.com/gpu", &["GPU-1"], &["GPU-1"]),
        ("nvidia.com/gpu", &["GPU-2", "GPU-1"], &["GPU-1", "GPU-2"]),
        ("nvidia.com/gpu", &["GPU-1::3"], &["GPU-1*"]),
        ("nvidia.com/gpu.shared", &["GPU-1::0", "GPU-1::1"], &["GPU-1*"]),
        ("nvidia.com/mig-1g.10gb", &["MIG-1"], &["MIG-1"]),
        ("nvidia.com/mig-1g.10gb", &["MIG-1::0"], &["MIG-1*"]),
        ("nvidia.com/mig-1g.10gb", &["MIG-GPU-1/7/0"], &["MIG-GPU-1/7/0"]),
        ("example.com/renamed", &["GPU-1"], &["GPU-1"]),
        ("nvidia.com/gpu", &["nvidia0"], &["nvidia0?"]),
        ("nvidia.com/gpu", &["nvidia0::1"], &["nvidia0::1*?"]),
        ("nvidia.com/gpu", &[""], &["?"]),
        ("nvidia.com/hostdev", &["0000:03:00.2"], &[]),
        ("example.com/fpga", &["card0"], &[]),
    ];
    for (resource, ids, expected) in table {
        let allocations = Allocations::from_entries(&[entry("llama", &[(resource, ids)])]);
        assert_eq!(shown(&allocations, "llama"), *expected, "{resource} {ids:?}");
    }
}

#[test]
fn a_device_of_two_pods_is_shared_and_only_that_one() {
    let allocations = Allocations::from_entries(&[
        entry("a", &[("nvidia.com/gpu", &["GPU-1", "GPU-2"])]),
        entry("b", &[("nvidia.com/gpu", &["GPU-2"])]),
    ]);
    assert_eq!(shown(&allocations, "a"), ["GPU-1", "GPU-2*"]);
    assert_eq!(shown(&allocations, "b"), ["GPU-2*"]);
}

#[test]
fn two_containers_of_one_pod_do_not_share_with_anybody() {
    let allocations = Allocations::from_entries(&[entry(
        "a",
        &[("nvidia.com/gpu", &["GPU-1"]), ("nvidia.com/gpu", &["GPU-1"])],
    )]);
    assert_eq!(shown(&allocations, "a"), ["GPU-1"]);
}

#[test]
fn a_pod_without_devices_is_known_and_a_pod_of_another_namespace_is_not() {
    let allocations =
        Allocations::from_entries(&[entry("web", &[]), entry("a", &[("nvidia.com/gpu", &["GPU-1"])])]);
    assert_eq!(allocations.of(&pod("web")), Some(&[][..]));
    assert_eq!(allocations.of(&PodName { namespace: "other".to_owned(), name: "a".to_owned() }), None);
    assert_eq!(allocations.pods_with_devices(), 1);
}

#[test]
fn an_unknown_id_says_what_it_is_and_what_was_expected() {
    let allocations = Allocations::from_entries(&[entry("a", &[("nvidia.com/gpu", &["nvidia0"])])]);
    let Identity::Unknown { why, .. } = &allocations.of(&pod("a")).expect("listed")[0].identity else {
        panic!("nvidia0 is no UUID");
    };
    assert_eq!(why, "the id \"nvidia0\" of resource nvidia.com/gpu is not a UUID of NVML (GPU-… or MIG-…)");
}
