//! Limits by plan.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, HeaderName, KeyPart, Limit, defaults};

/// A token bucket for each plan that clients can have. Each becomes a limit named `plan-` and its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.default) || self.plans.exists(plan, plan.name == self.default)"
).message(Plans::DEFAULT))]
pub struct Plans {
    /// What tells the plan of a request.
    pub from: PlanSource,
    /// What the requests of a plan are counted by, as in `limits`. Without a key all of a plan count together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub key: Vec<KeyPart>,
    /// The plans; when left out platinum (5000 a second, burst 2000), gold (1000, 500) and silver (200, 100).
    #[serde(default = "defaults::plans")]
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub plans: Vec<Plan>,
    /// The plan of requests that name none of these. When left out no plan limits them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 58))]
    pub default: Option<String>,
}

impl Plans {
    /// What is said about a default that is none of the plans.
    pub const DEFAULT: &str = "default is none of the plans: write the name of one of them, or leave it out";
}

/// What tells the plan of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.header) != has(self.jwtClaim)").message(PlanSource::EXACTLY_ONE))]
pub struct PlanSource {
    /// A header with the plan's name, such as a tag that a gateway sets for a route. Anybody who reaches the pod can
    /// write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderName>,
    /// A claim of a token that `identity` believes with the plan's name; of a list all plans in it hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub jwt_claim: Option<String>,
}

impl PlanSource {
    /// What is said about a source that is both or neither.
    pub const EXACTLY_ONE: &str =
        "a plan is told by one thing: write either jwtClaim: tier, or header: x-route-tag";
}

/// One plan: a token bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Its name, as the claim or the header has it.
    #[schemars(length(min = 1, max = 58))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message(Limit::NAME))]
    pub name: String,
    /// Requests per window.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub limit: i64,
    /// The window.
    #[serde(default = "defaults::plan_window")]
    pub window: Duration,
    /// How many requests may come at once; `limit` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i64>,
}
