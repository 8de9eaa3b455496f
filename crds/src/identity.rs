//! Who sends a request.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Claimant, Duration, HeaderName, StripHeaders, defaults};

/// Whose tokens, which API keys and whose word on an address are believed. A token that is not believed is as if it were
/// absent: nobody is refused for it, and nobody gains by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(has(self.jwt) && size(self.jwt) > 0) || has(self.apiKeys) || has(self.clientIP)"
).message(Identity::NOBODY))]
pub struct Identity {
    /// Issuers of JSON Web Tokens in `Authorization: Bearer`. Their claims can be keys of limits and give priority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["issuer"])
    )]
    pub jwt: Vec<JwtIssuer>,
    /// API keys, from a Secret of the pod's own namespace that the pod names in its annotation `tidegate.dev/api-keys`. What
    /// the Secret says of a key can be a key of limits and give priority, as claims of tokens do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_keys: Option<ApiKeys>,
    /// Where the address of a client comes from when its connection is a proxy's. Without it the address is that of the
    /// connection.
    #[serde(rename = "clientIP", skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIp>,
}

impl Identity {
    /// What is said about an identity of nobody.
    pub const NOBODY: &str =
        "nobody is known by this: write jwt, apiKeys, clientIP or several of them, or leave identity out";
}

/// Where clients show their API keys, and what becomes of those that have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeys {
    /// The header fields that may have a key: of `Authorization` behind `Bearer`, of any other all of its value.
    #[serde(default = "defaults::api_key_headers")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub headers: Vec<HeaderName>,
    /// A client without a key that the Secret has, and without a token that is believed.
    #[serde(default)]
    pub unknown: UnknownClient,
    /// Whether these headers are kept from the engine.
    #[serde(default)]
    pub strip_headers: StripHeaders,
}

/// What becomes of a client that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum UnknownClient {
    /// It has no claims, and shares the empty key with all others.
    #[default]
    Anonymous,
    /// It is answered 401. With `mode: Shadow` it is not.
    Refuse,
}

/// Whose word on a client's address is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.trustedProxies.all(block, block.matches('^[0-9A-Fa-f:.]{2,39}/[0-9]{1,3}$'))"
).message(Claimant::BLOCK))]
pub struct ClientIp {
    /// Address blocks of the proxies in front of the pods. The client is the last address in the field that is no
    /// proxy's; what stands before it could have been written by anybody.
    #[schemars(
        length(min = 1, max = 64),
        inner(length(max = 43)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub trusted_proxies: Vec<String>,
    /// The field that these proxies append to. The other one is not looked at: they may pass it on as the client wrote
    /// it.
    #[serde(default)]
    pub from: ForwardedBy,
}

/// A field in which proxies note whom they have a request from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// One issuer of JSON Web Tokens (RFC 7519).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtIssuer {
    /// The exact `iss` of its tokens.
    #[schemars(length(min = 1, max = 256))]
    pub issuer: String,
    /// One of these has to be in a token's `aud`. Empty: any, and none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub audiences: Vec<String>,
    /// The algorithms that its tokens may be signed with.
    #[serde(default = "defaults::jwt_algorithms")]
    #[schemars(length(min = 1, max = 9), extend("x-kubernetes-list-type" = "set"))]
    pub algorithms: Vec<JwtAlgorithm>,
    /// How far its clock may be off when `exp` and `nbf` are judged; none when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leeway: Option<Duration>,
    /// Its public keys.
    pub jwks: Jwks,
}

/// A JSON Web Key Set (RFC 7517), or where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.inline), has(self.uri), has(self.file)].filter(place, place).size() == 1"
).message(Jwks::EXACTLY_ONE))]
#[x_kube(validation = Rule::new("!has(self.caBundle) || has(self.uri)").message(Jwks::BUNDLE))]
pub struct Jwks {
    /// The set itself, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub inline: Option<String>,
    /// Where each sidecar reads it: every five minutes, and when a token names a key that is not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^https://[^ /?#]+([/?][^ #]*)?$')").message(Jwks::ADDRESS))]
    pub uri: Option<String>,
    /// The entry with the set in the `ConfigMap` that the pod names in its annotation `tidegate.dev/jwks`, which is of the
    /// pod's own namespace. Each sidecar reads it again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-_A-Za-z0-9][-._A-Za-z0-9]*$')").message(Jwks::ENTRY))]
    pub file: Option<String>,
    /// Only for `uri`: authorities in PEM that its server is believed by, instead of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub ca_bundle: Option<String>,
}

impl Jwks {
    /// What is said about keys that are in several places or none.
    pub const EXACTLY_ONE: &str =
        "keys are in one place: write either inline, a JSON Web Key Set, or uri, or file";
    /// What is said about an entry that no `ConfigMap` has.
    pub const ENTRY: &str = "not the key of an entry of a ConfigMap: write one such as issuer.json";
    /// What is said about a bundle without a server.
    pub const BUNDLE: &str = "caBundle is for the server of uri: write uri, or leave caBundle out";
    /// What is said about an address that is none.
    pub const ADDRESS: &str = "not an address: write one such as https://issuer.example.com/keys";
}

/// An asymmetric signature of JSON Web Algorithms (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}
