//! Where spans go, in the spelling of OpenTelemetry's variables.

use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};

use crate::admin::decode;

/// A collector, and as what this process shows itself there.
#[derive(Debug, Clone)]
pub struct Target {
    /// The whole address, path included.
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Attributes of the resource, `service.name` among them.
    pub(super) resource: Vec<(String, String)>,
}

impl Target {
    /// `endpoint` is the base address; `headers` and `attributes` are lists such as `a=b,c=d`, whose
    /// values may be percent-encoded.
    ///
    /// # Errors
    /// One line that says what is wrong and what to write. It never shows a header's value.
    pub fn new(endpoint: &str, headers: &str, service: &str, attributes: &str) -> Result<Self> {
        let mut resource = vec![("service.name".to_owned(), service.to_owned())];
        resource.extend(pairs(attributes).context("--resource-attributes")?);
        let headers = pairs(headers).context("--otlp-headers")?.into_iter().map(|(name, value)| {
            let bad = || format!("--otlp-headers: {name:?} is no header with a value that can be sent");
            let mut value = HeaderValue::from_str(&value).ok().with_context(bad)?;
            value.set_sensitive(true);
            Ok((HeaderName::from_str(&name).ok().with_context(bad)?, value))
        });
        Ok(Self { uri: traces(endpoint)?, headers: headers.collect::<Result<_>>()?, resource })
    }
}

/// OTLP over HTTP appends the signal's own path to the base.
fn traces(endpoint: &str) -> Result<Uri> {
    let wrong =
        || format!("--otlp-endpoint {endpoint:?}: write an address such as http://otel-collector:4318");
    let uri: Uri = endpoint.parse().ok().with_context(wrong)?;
    ensure!(matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some(), wrong());
    let path = format!("{}/v1/traces", uri.path().trim_end_matches('/'));
    let scheme = uri.scheme().cloned().unwrap_or(Scheme::HTTP);
    let authority = uri.authority().cloned().with_context(wrong)?;
    let path = PathAndQuery::try_from(path).ok().with_context(wrong)?;
    Ok(Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build()?)
}

fn pairs(list: &str) -> Result<Vec<(String, String)>> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (name, value) =
                item.split_once('=').context("write pairs such as name=value, with commas between")?;
            Ok((name.trim().to_owned(), decode(value.trim())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signal_s_path_is_appended_to_the_endpoint() {
        for (endpoint, uri) in [
            ("http://otel:4318", "http://otel:4318/v1/traces"),
            ("http://otel:4318/", "http://otel:4318/v1/traces"),
            ("https://otel.example.com/otlp", "https://otel.example.com/otlp/v1/traces"),
        ] {
            assert_eq!(Target::new(endpoint, "", "s", "").unwrap().uri, uri);
        }
    }

    #[test]
    fn what_is_no_address_or_no_list_is_refused_without_showing_a_secret() {
        for endpoint in ["otel:4318", "grpc://otel:4317", "", "/v1", "http://"] {
            let error = format!("{:#}", Target::new(endpoint, "", "s", "").unwrap_err());
            assert!(error.contains("http://otel-collector:4318"), "{error}");
        }
        for headers in ["secret", "a b=secret", "a=sec\u{7}ret"] {
            let error = format!("{:#}", Target::new("http://o", headers, "s", "").unwrap_err());
            assert!(error.starts_with("--otlp-headers") && !error.contains("secret"), "{error}");
        }
        let target =
            Target::new("http://o", "authorization=Basic%20a=, x=y", "llama", "k8s.pod.name=p").unwrap();
        assert_eq!(target.headers.len(), 2);
        assert_eq!(target.resource[1], ("k8s.pod.name".to_owned(), "p".to_owned()));
        assert!(!format!("{target:?}").contains("Basic"), "a header's value is not shown");
    }
}
