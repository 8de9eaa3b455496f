//! What is fuzzed of the addresses of clients behind proxies.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use tidegate_policy::{ClientIp, ForwardedBy};

use super::client_ip::Proxies;
use crate::fuzzing::fields;

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1));

/// A stranger's fields say nothing, nothing that a client writes hides it behind a proxy that tells who it is, and of
/// `X-Forwarded-For` the last address that is no proxy's counts.
pub(crate) fn forwarded(data: &[u8]) {
    let trusted_proxies = || vec!["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()];
    for (from, name, appended) in [
        (ForwardedBy::XForwardedFor, "x-forwarded-for", "203.0.113.1, 10.9.9.9"),
        (ForwardedBy::Forwarded, "forwarded", "for=203.0.113.1, for=10.9.9.9"),
    ] {
        let proxies = Proxies::new(&ClientIp { trusted_proxies: trusted_proxies(), from });
        let mut headers = fields(name, data);
        assert_eq!(proxies.client(STRANGER, &headers), STRANGER, "a stranger is itself");
        let client = proxies.client(PROXY, &headers);
        if from == ForwardedBy::XForwardedFor {
            assert_eq!(client, reference(&headers));
        }
        headers.append(name, HeaderValue::from_static(appended));
        assert_eq!(proxies.client(PROXY, &headers), CLIENT, "what a client writes does not hide it");
    }
}

/// All of the addresses, then the last that is no proxy's.
fn reference(headers: &HeaderMap) -> IpAddr {
    let values: Vec<String> =
        headers.values().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
    let mut client = PROXY;
    for text in values.join(",").split(',').rev().take(if values.is_empty() { 0 } else { 32 }) {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let address: IpAddr = match (text.parse(), text.parse::<std::net::SocketAddr>(), bare.map(str::parse))
        {
            (Ok(address), ..) => address,
            (_, Ok(address), _) => address.ip(),
            (.., Some(Ok(address))) => IpAddr::V6(address),
            _ => return client,
        };
        client = address.to_canonical();
        let is_proxy = match client {
            IpAddr::V4(v4) => v4.octets()[0] == 10,
            IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
        };
        if !is_proxy {
            return client;
        }
    }
    client
}
