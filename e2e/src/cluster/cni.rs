//! The pods' network of a cluster that has none of its own: a link per pod, and routes between the nodes.

/// The configuration of the container network of a node whose pods have addresses of this range.
pub(super) fn config(range: &str) -> String {
    format!(
        r#"{{"cniVersion":"0.4.0","name":"tidegate","plugins":[
 {{"type":"ptp","mtu":1500,"ipMasq":false,"ipam":{{"type":"host-local","dataDir":"/run/cni-ipam","ranges":[[{{"subnet":"{range}"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}},
 {{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gives_its_pods_addresses_of_its_own_range() {
        let config: serde_json::Value = serde_json::from_str(&config("10.244.3.0/24")).unwrap();
        assert_eq!(config["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.3.0/24");
    }
}
