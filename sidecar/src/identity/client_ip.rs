//! The address of a client whose connection is a proxy's.
//!
//! A proxy appends to the field whom it has the request from. So the way is walked back from its last address, and as
//! long as an address is a trusted proxy's, what that proxy has appended is believed. The first that is no such address is
//! the client's; everything before it could have been written by anybody.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use tidegate_policy::{ClientIp, ForwardedBy};

use crate::quoted::split;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// More proxies than any request goes through. Beyond, the last one is taken for the client.
const MOST_HOPS: usize = 32;

/// The proxies in front of the pod.
#[derive(Debug)]
pub(super) struct Proxies {
    trusted: Box<[IpNet]>,
    from: ForwardedBy,
}

impl Proxies {
    pub(super) fn new(policy: &ClientIp) -> Self {
        let trusted = policy.blocks().filter_map(|(address, length)| IpNet::new(address, length).ok());
        Self { trusted: trusted.collect(), from: policy.from }
    }

    /// Who sends a request that came over a connection from `connection`.
    pub(super) fn client(&self, connection: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(connection) {
            return connection;
        }
        match self.from {
            ForwardedBy::XForwardedFor => {
                let values = headers.get_all(X_FORWARDED_FOR).iter().rev().map(HeaderValue::as_bytes);
                self.walk(connection, values.flat_map(|value| value.rsplit(|byte| *byte == b',')))
            }
            ForwardedBy::Forwarded => {
                let values = headers.get_all(FORWARDED).iter().map(HeaderValue::as_bytes);
                // What is quoted is only known from the front.
                let elements: Vec<&[u8]> = values.flat_map(|value| split(value, b',')).collect();
                self.walk(connection, elements.into_iter().rev().map(forwarded_for))
            }
        }
    }

    /// `back`: addresses as text, the last that was appended first.
    fn walk<'a>(&self, connection: IpAddr, back: impl Iterator<Item = &'a [u8]>) -> IpAddr {
        let mut client = connection;
        for text in back.take(MOST_HOPS) {
            // One that hides whom it has the request from stands for it.
            let Some(address) = address(text) else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|block| block.contains(&address))
    }
}

/// The value of `for` in an element of `Forwarded`, without its quotes; empty when there is none.
fn forwarded_for(element: &[u8]) -> &[u8] {
    let pair = split(element, b';').map(<[u8]>::trim_ascii).find_map(|pair| match pair.split_at_checked(4) {
        Some((name, value)) if name.eq_ignore_ascii_case(b"for=") => Some(value),
        _ => None,
    });
    let value = pair.unwrap_or_default();
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// `10.0.0.1`, `10.0.0.1:80`, `fd00::1`, `[fd00::1]` or `[fd00::1]:80`.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text.trim_ascii()).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(from: ForwardedBy, connection: &str, values: &[&str]) -> String {
        let trusted_proxies = vec!["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()];
        let proxies = Proxies::new(&ClientIp { trusted_proxies, from });
        let mut headers = HeaderMap::new();
        for value in values {
            let name = if from == ForwardedBy::Forwarded { FORWARDED } else { X_FORWARDED_FOR };
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        proxies.client(connection.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy_s() {
        for (connection, values, expected) in [
            ("192.0.2.9", &["203.0.113.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.1"], "203.0.113.1"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.1"], "203.0.113.1"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.1, 10.9.9.9"], "203.0.113.1"),
            ("10.0.0.1", &["6.6.6.6", "203.0.113.1", "10.9.9.9 ,fd00::7"], "203.0.113.1"),
            ("fd00::1", &["2001:db8::5"], "2001:db8::5"),
            ("10.0.0.1", &["203.0.113.1:4711"], "203.0.113.1"),
            ("10.0.0.1", &["[2001:db8::5]:4711"], "2001:db8::5"),
            ("10.0.0.1", &["::ffff:203.0.113.1"], "203.0.113.1"),
            ("10.0.0.1", &["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
            ("10.0.0.1", &["6.6.6.6, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["6.6.6.6, _hidden, 10.9.9.9"], "10.9.9.9"),
            ("10.0.0.1", &["6.6.6.6,"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            assert_eq!(client(ForwardedBy::XForwardedFor, connection, values), expected, "{values:?}");
        }
    }

    #[test]
    fn forwarded_is_read_with_its_quotes_and_no_quoted_text_is_an_element() {
        for (values, expected) in [
            (&["for=203.0.113.1"][..], "203.0.113.1"),
            (&["for=6.6.6.6, For=\"[2001:db8::5]:80\";proto=https"], "2001:db8::5"),
            (&["proto=http;for=203.0.113.1;by=10.0.0.1, for=10.9.9.9"], "203.0.113.1"),
            (&["for=203.0.113.1;host=\"x, for=6.6.6.6\""], "203.0.113.1"),
            (&["for=203.0.113.1;host=\"x, for=6.6.6.6"], "203.0.113.1"),
            (&["for=6.6.6.6, proto=http"], "10.0.0.1"),
            (&["for=6.6.6.6, for=unknown"], "10.0.0.1"),
        ] {
            assert_eq!(client(ForwardedBy::Forwarded, "10.0.0.1", values), expected, "{values:?}");
        }
    }

    #[test]
    fn no_more_hops_are_walked_than_any_request_goes_through() {
        let long = ["6.6.6.6"].into_iter().chain(std::iter::repeat_n("10.1.1.1", 40)).collect::<Vec<_>>();
        assert_eq!(client(ForwardedBy::XForwardedFor, "10.0.0.1", &[&long.join(",")]), "10.1.1.1");
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_a_client_writes_makes_it_another(written in "[ -~]{0,64}") {
            let values = [written.as_str(), "203.0.113.1, 10.9.9.9"];
            proptest::prop_assert_eq!(client(ForwardedBy::XForwardedFor, "10.0.0.1", &values), "203.0.113.1");
            let values = [written.as_str(), "for=203.0.113.1, for=10.9.9.9"];
            proptest::prop_assert_eq!(client(ForwardedBy::Forwarded, "10.0.0.1", &values), "203.0.113.1");
        }
    }
}
