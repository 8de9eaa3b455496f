//! What the limits of a policy come to over its pods.

use tidegate_crds::LimitStatus;
use tidegate_policy::Limit;

use super::conditions::View;
use super::{Reports, report_of};
use crate::merge::Part;

/// The bound of the field in the schema.
const MOST: usize = 64;

/// One for each limit in force: each pod counts by itself, so all of them admit that many times as much.
pub(super) fn of(view: &View<'_>, reports: &Reports) -> Vec<LimitStatus> {
    let limits = view.stored.compiled().map(|policy| policy.parts.limits.as_slice()).unwrap_or_default();
    let pods = view.namespace.pods_of(view.policy).filter(|(name, pod, verdict)| {
        let lost = verdict.losses.iter().any(|loss| loss.policy == *view.policy && loss.part == Part::Limits);
        let report = report_of(reports, view.policy, name, pod);
        !pod.finished && !lost && report.is_some_and(|report| report.revision == verdict.document.revision)
    });
    let pods = i32::try_from(pods.count()).unwrap_or(i32::MAX);
    limits.iter().take(MOST).map(|limit| status(limit, pods)).collect()
}

fn status(limit: &Limit, pods: i32) -> LimitStatus {
    let per_pod = i64::try_from(limit.limit).unwrap_or(i64::MAX);
    LimitStatus {
        name: limit.name.clone(),
        per_pod,
        window: limit.window_millis.map(|window| duration(window.get())),
        pods,
        total: per_pod.saturating_mul(i64::from(pods)),
    }
}

/// In the largest unit in which it is whole.
fn duration(millis: u64) -> String {
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = units.into_iter().find(|(unit, _)| millis.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_written_in_the_largest_unit_in_which_it_is_whole() {
        for (millis, text) in
            [(500, "500ms"), (1_500, "1500ms"), (90_000, "90s"), (60_000, "1m"), (86_400_000, "24h")]
        {
            assert_eq!(duration(millis), text);
        }
    }
}
