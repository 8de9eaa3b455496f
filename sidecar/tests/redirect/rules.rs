use std::process::Command;

use crate::net::{Net, SIDECAR, pod_v4, pod_v6};

#[test]
fn connections_to_guarded_ports_reach_the_sidecar_with_their_destination() {
    let net = Net::new();
    net.redirect(&[8000, 8001]);
    let server = net.serve(SIDECAR, 3);
    assert_eq!(net.ask(false, pod_v4(), 8000).unwrap(), "15120 10.77.0.2:8000");
    assert_eq!(net.ask(false, pod_v4(), 8001).unwrap(), "15120 10.77.0.2:8001");
    assert_eq!(net.ask(false, pod_v6(), 8000).unwrap(), "15120 [fd77::2]:8000");
    server.join().unwrap();
}

#[test]
fn other_ports_and_connections_inside_the_pod_go_where_they_went() {
    let net = Net::new();
    net.redirect(&[8000]);
    let other = net.serve(9000, 1);
    assert!(net.ask(false, pod_v4(), 9000).unwrap().starts_with("9000 "));
    other.join().unwrap();
    let engine = net.serve(8000, 2);
    assert!(net.ask(true, "127.0.0.1".parse().unwrap(), 8000).unwrap().starts_with("8000 "));
    assert!(net.ask(true, pod_v4(), 8000).unwrap().starts_with("8000 "));
    engine.join().unwrap();
}

#[test]
fn a_second_run_replaces_what_the_first_one_wrote() {
    let net = Net::new();
    net.redirect(&[8000, 8001]);
    net.redirect(&[8001]);
    let server = net.serve(SIDECAR, 1);
    assert_eq!(net.ask(false, pod_v4(), 8000), None, "8000 is still redirected");
    assert_eq!(net.ask(false, pod_v4(), 8001).unwrap(), "15120 10.77.0.2:8001");
    server.join().unwrap();
}

#[test]
fn the_rules_read_as_nft_would_have_written_them() {
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("nft is not installed: the rules were judged by what they do, in the other tests");
        return;
    }
    let net = Net::new();
    net.redirect(&[8000, 8001]);
    let list = ["netns", "exec", &net.pod, "nft", "-s", "list", "ruleset"];
    let listed = String::from_utf8(Command::new("ip").args(list).output().unwrap().stdout).unwrap();
    let lines: Vec<&str> = listed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let expected = [
        "table inet tidegate {",
        "chain prerouting {",
        "type nat hook prerouting priority dstnat; policy accept;",
        "iifname != \"lo\" tcp dport 8000 redirect to :15120",
        "iifname != \"lo\" tcp dport 8001 redirect to :15120",
        "}",
        "}",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn without_net_admin_it_says_so_in_one_line() {
    let net = Net::new();
    let sidecar = env!("CARGO_BIN_EXE_tidegate-sidecar");
    let without = ["netns", "exec", &net.pod, "setpriv", "--bounding-set=-net_admin", sidecar];
    let output = Command::new("ip")
        .args(without)
        .args(["redirect", "--guard", "8000", "--to", "15120"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("NET_ADMIN"), "{stderr}");
}
