//! What the `LimitRange`s of a namespace ask of each container.
//!
//! The API server refuses a pod of which one container lies outside. So the sidecar's requests and limits are brought
//! within; a sidecar that gets less than it was meant to have is better than a pod that does not start.

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::{UNIT, billionths, written};

/// Bounds on CPU and memory of each container, of all `LimitRange`s of a namespace together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerBounds {
    cpu: Bounds,
    memory: Bounds,
}

/// Bounds on one resource. What the API server would not have taken is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    min: Option<String>,
    max: Option<String>,
    /// Largest limit by request.
    ratio: Option<String>,
}

impl ContainerBounds {
    /// The narrowest bounds of all items for containers.
    pub fn of<'a>(ranges: impl IntoIterator<Item = &'a LimitRange>) -> Self {
        let mut bounds = Self::default();
        let items = ranges.into_iter().filter_map(|range| range.spec.as_ref()).flat_map(|spec| &spec.limits);
        for item in items.filter(|item| item.type_ == "Container") {
            bounds.cpu.narrow("cpu", item);
            bounds.memory.narrow("memory", item);
        }
        bounds
    }

    pub(super) const fn cpu(&self) -> &Bounds {
        &self.cpu
    }

    pub(super) const fn memory(&self) -> &Bounds {
        &self.memory
    }
}

impl Bounds {
    fn narrow(&mut self, resource: &str, item: &LimitRangeItem) {
        let named = |of: &Option<std::collections::BTreeMap<String, Quantity>>| {
            of.as_ref()?.get(resource).map(|quantity| quantity.0.clone())
        };
        keep(&mut self.min, named(&item.min), |new, old| new > old);
        keep(&mut self.max, named(&item.max), |new, old| new < old);
        keep(&mut self.ratio, named(&item.max_limit_request_ratio), |new, old| new < old);
    }

    /// Whether a container has to have a limit.
    pub(super) const fn ask_for_a_limit(&self) -> bool {
        self.max.is_some() || self.ratio.is_some()
    }

    /// A request or a limit brought between the least and the most.
    pub(super) fn within(&self, quantity: String) -> String {
        let value = billionths(&quantity);
        match (&self.min, &self.max) {
            (Some(min), _) if value < billionths(min) => min.clone(),
            (_, Some(max)) if value > billionths(max) => max.clone(),
            _ => quantity,
        }
    }

    /// A request that is not above its limit, and not too far below it.
    pub(super) fn request_for(&self, request: String, limit: Option<&str>) -> String {
        let Some(limit) = limit else { return request };
        let (Some(asked), Some(most)) = (billionths(&request), billionths(limit)) else { return request };
        if asked > most {
            return limit.to_owned();
        }
        let ratio = self.ratio.as_deref().and_then(billionths);
        let least = ratio.map(|ratio| most.saturating_mul(UNIT).div_ceil(ratio));
        least.filter(|least| asked < *least).map_or(request, written)
    }
}

fn keep(kept: &mut Option<String>, new: Option<String>, is_narrower: impl Fn(u128, u128) -> bool) {
    let Some(new) = new else { return };
    let Some(value) = billionths(&new) else { return };
    let old = kept.as_deref().and_then(billionths);
    if old.is_none_or(|old| is_narrower(value, old)) {
        *kept = Some(new);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bounds(limits: &serde_json::Value) -> ContainerBounds {
        let range: LimitRange = serde_json::from_value(json!({"spec": {"limits": limits}})).unwrap();
        ContainerBounds::of([&range])
    }

    #[test]
    fn of_several_bounds_the_narrowest_holds_and_those_of_whole_pods_do_not() {
        let all = bounds(&json!([
            {"type": "Container", "min": {"cpu": "0.1"}, "max": {"cpu": "2", "memory": "1Gi"}},
            {"type": "Container", "min": {"cpu": "200m"}, "max": {"cpu": "1500m", "memory": "lots"}},
            {"type": "Pod", "min": {"cpu": "4"}},
        ]));
        let cpu = |quantity: &str| all.cpu().within(quantity.to_owned());
        assert_eq!((cpu("50m"), cpu("1"), cpu("1800m")), ("200m".into(), "1".into(), "1500m".into()));
        assert_eq!(all.memory().within("2Gi".to_owned()), "1Gi");
        assert!(all.memory().ask_for_a_limit());
    }

    #[test]
    fn a_request_comes_as_near_to_its_limit_as_the_ratio_asks() {
        let all = bounds(&json!([
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "3", "memory": "1.5"}}
        ]));
        let cpu = |request: &str, limit| all.cpu().request_for(request.to_owned(), Some(limit));
        assert_eq!(
            (cpu("50m", "500m"), cpu("200m", "500m"), cpu("2", "1")),
            ("167m".into(), "200m".into(), "1".into())
        );
        assert_eq!(all.memory().request_for("32Mi".to_owned(), Some("96Mi")), "67108864");
    }

    #[test]
    fn without_bounds_everything_stays() {
        let none = ContainerBounds::of([]);
        assert_eq!(none.cpu().within("50m".to_owned()), "50m");
        assert_eq!(none.cpu().request_for("50m".to_owned(), Some("4")), "50m");
        assert!(!none.cpu().ask_for_a_limit());
    }
}
