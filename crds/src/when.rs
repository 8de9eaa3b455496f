//! Which requests a limit is for.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{HeaderName, SelectorOperator, defaults};

/// Something that has to hold of a request, in the manner of label selectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.header), has(self.jwtClaim), has(self.source)].exists_one(written, written)").message(When::EXACTLY_ONE))]
#[x_kube(validation = Rule::new(
    "(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)"
).message(When::VALUES))]
#[x_kube(validation = Rule::new(
    "!has(self.source) || self.operator == 'In' || self.operator == 'NotIn'"
).message(When::ALWAYS_THERE))]
pub struct When {
    /// The value of this header field. Anybody can write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// A claim of a token that `identity` believes; of a list any of its values. A name that begins with a slash is a
    /// JSON Pointer into nested claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub jwt_claim: Option<String>,
    /// A property of the request other than a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<WhenSource>,
    /// How it is compared. What is absent is `NotIn` whatever is written.
    #[serde(default = "defaults::when_operator")]
    pub operator: SelectorOperator,
    /// What it is compared with. A path that ends with `*` stands for all that begin so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

impl When {
    /// What is said about a condition on several things, or on none.
    pub const EXACTLY_ONE: &str =
        "a condition is on one thing: write header: x-tier, jwtClaim: tier, or source: Path or Method";
    /// What is said about an operator with the wrong number of values.
    pub const VALUES: &str = "values do not fit the condition: write values for In, which is the default, and NotIn, and none for Exists and DoesNotExist";
    /// What is said about the presence of what is always there.
    pub const ALWAYS_THERE: &str = "every request has a path and a method: write operator: In or NotIn";
}

/// A property of a request that a condition is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenSource {
    /// The path, without its query.
    Path,
    /// The method, in upper case.
    Method,
}
